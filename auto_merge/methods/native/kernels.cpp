// Fused merge kernels: read every input once, compute in float32, write the result once.
//
// Rules that the torch implementation in ../fallback.py follows too, so that both give the same bits:
// - products and sums are rounded separately (compile with -ffp-contract=off, no fast-math);
// - sources are added in the order given;
// - float32 is rounded to the output type once, to nearest, ties to even.
// Work is cut into blocks of fixed size, so results do not depend on the number of threads.
// Every exported function returns 0, or 1 if memory ran out.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "blocks.h"

namespace {

constexpr int64_t kStride = kBlock + 32;   // between buffers: not a power of two, or they collide
constexpr int64_t kBins = 1 << 15;         // top 16 bits of |x| with the sign bit cleared
constexpr int64_t kLanes = 16;             // independent partial sums, for vector units

// Bit patterns of |source - base|: as unsigned integers they sort like the magnitudes, NaN last.
void magnitudes(const Input& source, const Input& base, int64_t start, int64_t size,
                uint32_t* result) {
  float buffer[kBlock];
  base.read(start, size, [&](int64_t j, float value) { buffer[j] = value; });
  source.read(start, size, [&](int64_t j, float value) {
    result[j] = bits_of(value - buffer[j]) & 0x7FFFFFFFu;
  });
}

// The magnitudes of one histogram bin, in any order; false if memory ran out.
bool collect(int64_t n, const Input& source, const Input& base, uint32_t bin, int32_t threads,
             std::vector<uint32_t>& found) {
  std::vector<std::vector<uint32_t>> parts(static_cast<size_t>(std::max(threads, 1)));
  const bool complete = parallel(n, threads, [&](int64_t first, int64_t last, int64_t worker) {
    std::vector<uint32_t>& mine = parts[static_cast<size_t>(worker)];
    uint32_t bits[kBlock + kLanes];
    for (int64_t block = first; block < last; ++block) {
      const int64_t size = block_size(n, block);
      magnitudes(source, base, block * kBlock, size, bits);
      std::fill(bits + size, bits + size + kLanes, ~0u);
      for (int64_t j = 0; j < size; j += kLanes) {
        uint32_t any = 0;
        for (int64_t lane = 0; lane < kLanes; ++lane) any |= (bits[j + lane] >> 16) == bin;
        if (any == 0) continue;
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          if ((bits[j + lane] >> 16) == bin) mine.push_back(bits[j + lane]);
        }
      }
    }
  });
  for (const auto& part : parts) found.insert(found.end(), part.begin(), part.end());
  return complete;
}

// One histogram bin; all its elements are equal if the bits common to all are those in any.
struct Bin {
  int64_t count = 0;
  uint16_t common = 0xFFFF;
  uint16_t any = 0;

  void add(int64_t more, uint32_t all_have, uint32_t some_have) {
    count += more;
    common = static_cast<uint16_t>(common & all_have);
    any = static_cast<uint16_t>(any | some_have);
  }
};

struct Ties {
  int64_t n;
  std::vector<Input> sources;
  Input base;
  const float* weights;
  const float* thresholds;
  float scale;
  float factor;
  Output out;

  // An element whose entries cancel exactly: both results, until the majority is known.
  struct Tie {
    int64_t index;
    float positive;
    float negative;
  };

  struct Part {
    int64_t signs = 0;            // positive minus negative elected signs
    std::vector<Tie> ties;        // in blocks with few of them
    std::vector<int64_t> blocks;  // blocks with many: cheaper to merge again, bounds the memory
  };

  // Merges one block; where entries cancel, those of the sign `majority` count, or none if 0.
  // Adds signs and ties to `part` unless it is null.
  void merge(int64_t block, float majority, std::vector<float>& scratch, Part* part) const {
    const int64_t start = block * kBlock;
    const int64_t size = block_size(n, block);
    float* __restrict__ b = scratch.data();
    float* __restrict__ elected = b + kStride;
    float* __restrict__ total = elected + kStride;
    float* __restrict__ mass = total + kStride;
    float* __restrict__ tied = mass + kStride;
    float* deltas = tied + kStride;
    base.read(start, size, [=](int64_t j, float value) { b[j] = value; });
    std::fill(elected, elected + size, 0.0f);
    std::fill(tied, tied + kBlock, 0.0f);
    for (size_t i = 0; i < sources.size(); ++i) {
      float* __restrict__ delta = deltas + static_cast<int64_t>(i) * kStride;
      sources[i].read(start, size, [=](int64_t j, float value) { delta[j] = value - b[j]; });
      trim(delta, elected, tied, size, weights[i], thresholds[i]);
    }
    const int64_t signs = elect(elected, total, mass, tied, size, majority);
    for (size_t i = 0; i < sources.size(); ++i) {
      average(deltas + static_cast<int64_t>(i) * kStride, elected, total, mass, size, weights[i]);
    }
    const float scaling = scale;
    const float last = factor;
    out.write(start, size, [=](int64_t j) {
      const float divisor = mass[j] > 0.0f ? mass[j] : 1.0f;
      return last * (b[j] + scaling * (total[j] / divisor));
    });
    if (part != nullptr) {
      part->signs += signs;
      record(block, b, tied, deltas, *part);
    }
  }

  // Both possible results of the elements with a tie.
  void record(int64_t block, const float* b, const float* tied, const float* deltas,
              Part& part) const {
    int32_t count = 0;
    for (int64_t j = 0; j < kBlock; ++j) count += tied[j] != 0.0f ? 1 : 0;
    if (count > kBlock / 8) {
      part.blocks.push_back(block);
      return;
    }
    for (int64_t j = 0; count > 0; ++j) {
      if (tied[j] == 0.0f) continue;
      --count;
      float sum[2] = {0.0f, 0.0f};
      float mass[2] = {0.0f, 0.0f};
      for (size_t i = 0; i < sources.size(); ++i) {
        const float value = deltas[static_cast<int64_t>(i) * kStride + j];
        if (value == 0.0f) continue;
        const int side = value < 0.0f ? 1 : 0;
        sum[side] += weights[i] * value;
        mass[side] += weights[i];
      }
      // A side without entries (products that underflow) has the mean 0.
      for (float& side : mass) side = side > 0.0f ? side : 1.0f;
      part.ties.push_back({block * kBlock + j, factor * (b[j] + scale * (sum[0] / mass[0])),
                           factor * (b[j] + scale * (sum[1] / mass[1]))});
    }
  }

  // Sets small deltas to 0, adds the others to the sums; `present` marks elements with an entry.
  static void trim(float* __restrict__ delta, float* __restrict__ sum,
                   float* __restrict__ present, int64_t size, float weight, float threshold) {
    for (int64_t j = 0; j < size; ++j) {
      // NaN compares false and is kept, so that it reaches the result.
      const float kept = std::fabs(delta[j]) < threshold ? 0.0f : delta[j];
      delta[j] = kept;
      sum[j] += weight * kept;
      present[j] = kept != 0.0f ? 1.0f : present[j];
    }
  }

  // Replaces sums of 0 by `majority`, starts the mean at 0 (at NaN where the sum is NaN), leaves
  // in `present` the marks of elements with a tie, and returns the sum of the elected signs.
  static int64_t elect(float* __restrict__ sum, float* __restrict__ total,
                       float* __restrict__ mass, float* __restrict__ present, int64_t size,
                       float majority) {
    int32_t signs = 0;
    for (int64_t j = 0; j < size; ++j) {
      const float value = sum[j];
      signs += (value > 0.0f ? 1 : 0) - (value < 0.0f ? 1 : 0);
      present[j] = value == 0.0f ? present[j] : 0.0f;
      sum[j] = value == 0.0f ? majority : value;
      total[j] = value != value ? value : 0.0f;
      mass[j] = 0.0f;
    }
    return signs;
  }

  // Adds the entries that have the elected sign to `total` and their weights to `mass`.
  static void average(const float* __restrict__ delta, const float* __restrict__ elected,
                      float* __restrict__ total, float* __restrict__ mass, int64_t size,
                      float weight) {
    for (int64_t j = 0; j < size; ++j) {
      const float value = delta[j];
      const float positive = elected[j] > 0.0f ? 1.0f : 0.0f;
      const float negative = elected[j] < 0.0f ? 1.0f : 0.0f;
      const float agrees = (value > 0.0f ? positive : 0.0f) + (value < 0.0f ? negative : 0.0f);
      total[j] += agrees != 0.0f ? weight * value : 0.0f;
      mass[j] += agrees * weight;
    }
  }
};

// One elementwise merge of a tensor; the layout is that of Job in __init__.py.
struct Job {
  int64_t n;
  const void* const* data;  // sources
  const int32_t* codes;     // their element types
  const void* base;
  const float* weights;
  const float* thresholds;
  void* out;
  int64_t num_invalid;  // result: NaN and infinite elements of out
  int32_t kernel;       // 0 weighted_sum, 1 weighted_delta_sum, 2 ties
  int32_t count;        // of sources
  int32_t base_code;
  int32_t out_code;
  float scale;
  float factor;    // on the result
  int32_t failed;  // result: memory ran out

  Input source(int32_t i) const { return {data[i], codes[i]}; }
  Output output() const { return {out, out_code}; }
};

// Runs merge_block(start, size) over the tensor of a job and counts what is not finite.
template <class MergeBlock>
bool for_each_block(Job& job, int32_t threads, MergeBlock merge_block) {
  std::atomic<int64_t> num_invalid{0};
  const bool complete = parallel(job.n, threads, [&](int64_t first, int64_t last, int64_t) {
    int64_t found = 0;
    for (int64_t block = first; block < last; ++block) {
      const int64_t start = block * kBlock;
      const int64_t size = block_size(job.n, block);
      merge_block(start, size);
      found += job.output().num_invalid(start, size);
    }
    num_invalid += found;
  });
  job.num_invalid = num_invalid;
  return complete;
}

// out = factor * sum of weights[i] * sources[i]
bool weighted_sum(Job& job, int32_t threads) {
  const float factor = job.factor;
  return for_each_block(job, threads, [&](int64_t start, int64_t size) {
    float sum[kBlock];
    for (int32_t i = 0; i < job.count; ++i) {
      const float weight = job.weights[i];
      if (i == 0) {
        job.source(i).read(start, size, [&](int64_t j, float x) { sum[j] = weight * x; });
      } else {
        job.source(i).read(start, size, [&](int64_t j, float x) { sum[j] += weight * x; });
      }
    }
    job.output().write(start, size, [&](int64_t j) { return factor * sum[j]; });
  });
}

// out = factor * (base + sum of weights[i] * (sources[i] - base))
bool weighted_delta_sum(Job& job, int32_t threads) {
  const float factor = job.factor;
  return for_each_block(job, threads, [&](int64_t start, int64_t size) {
    float b[kBlock];
    float sum[kBlock];
    Input{job.base, job.base_code}.read(start, size, [&](int64_t j, float x) { b[j] = x; });
    for (int32_t i = 0; i < job.count; ++i) {
      const float weight = job.weights[i];
      if (i == 0) {
        job.source(i).read(start, size,
                           [&](int64_t j, float x) { sum[j] = weight * (x - b[j]); });
      } else {
        job.source(i).read(start, size,
                           [&](int64_t j, float x) { sum[j] += weight * (x - b[j]); });
      }
    }
    job.output().write(start, size, [&](int64_t j) { return factor * (b[j] + sum[j]); });
  });
}

// TIES with known thresholds; see ../ties.py for the formula
bool ties(Job& job, int32_t threads) {
  Ties merge{job.n, {}, {job.base, job.base_code}, job.weights, job.thresholds, job.scale,
             job.factor, job.output()};
  for (int32_t i = 0; i < job.count; ++i) merge.sources.push_back(job.source(i));
  const size_t scratch_size = static_cast<size_t>((job.count + 5) * kStride);
  std::vector<Ties::Part> parts(static_cast<size_t>(std::max(threads, 1)));
  bool complete = parallel(job.n, threads, [&](int64_t first, int64_t last, int64_t worker) {
    std::vector<float> scratch(scratch_size);
    Ties::Part& mine = parts[static_cast<size_t>(worker)];
    for (int64_t block = first; block < last; ++block) merge.merge(block, 0.0f, scratch, &mine);
  });
  int64_t signs = 0;
  for (const auto& part : parts) signs += part.signs;
  if (signs != 0) {  // without a majority elements with a tie keep the base
    std::vector<float> scratch(scratch_size);
    for (const auto& part : parts) {
      for (const Ties::Tie& tie : part.ties) {
        const float value = signs > 0 ? tie.positive : tie.negative;
        merge.out.write(tie.index, 1, [=](int64_t) { return value; });
      }
      for (const int64_t block : part.blocks) {
        merge.merge(block, signs > 0 ? 1.0f : -1.0f, scratch, nullptr);
      }
    }
  }
  return for_each_block(job, threads, [](int64_t, int64_t) {}) && complete;
}

template <class Body>
int32_t guarded(Body body) {
  try {
    return body() ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

void run(Job& job, int32_t threads) {
  job.failed = guarded([&] {
    if (job.kernel == 0) return weighted_sum(job, threads);
    if (job.kernel == 1) return weighted_delta_sum(job, threads);
    return ties(job, threads);
  });
}

}  // namespace

extern "C" {

// Runs independent jobs. A tensor of `large` elements or more gets all threads, one after the
// other; the others are dealt out to as many single threads, the largest first.
int32_t run_jobs(Job* jobs, int32_t count, int64_t large, int32_t threads) {
  return guarded([&] {
    std::vector<Job*> small;
    for (Job* job = jobs; job < jobs + count; ++job) {
      if (job->n < large) {
        small.push_back(job);
      } else {
        run(*job, threads);
      }
    }
    std::sort(small.begin(), small.end(), [](const Job* a, const Job* b) { return a->n > b->n; });
    std::atomic<size_t> next{0};
    return on_threads(std::min<int64_t>(threads, static_cast<int64_t>(small.size())),
                      [&](int64_t) {
                        for (size_t i = next++; i < small.size(); i = next++) run(*small[i], 1);
                      });
  });
}

// counts[bin] = number of elements whose |source - base| starts with the 16 bits `bin`, 2^15 bins;
// low[bin] = the other 16 bits if all elements of the bin are equal, else -1
int32_t delta_histogram(int64_t n, const void* source, int32_t code, const void* base,
                        int32_t base_code, int64_t* counts, int32_t* low, int32_t threads) {
  return guarded([&] {
    std::vector<std::vector<Bin>> parts(static_cast<size_t>(std::max(threads, 1)));
    const bool complete = parallel(n, threads, [&](int64_t first, int64_t last, int64_t worker) {
      std::vector<Bin>& mine = parts[static_cast<size_t>(worker)];
      mine.assign(kBins, Bin{});
      uint32_t bits[kBlock];
      for (int64_t block = first; block < last; ++block) {
        const int64_t size = block_size(n, block);
        magnitudes({source, code}, {base, base_code}, block * kBlock, size, bits);
        for (int64_t j = 0; j < size; ++j) mine[bits[j] >> 16].add(1, bits[j], bits[j]);
      }
    });
    for (int64_t i = 0; i < kBins; ++i) {
      Bin sum;
      for (const auto& part : parts) {
        if (!part.empty()) {
          const Bin& bin = part[static_cast<size_t>(i)];
          sum.add(bin.count, bin.common, bin.any);
        }
      }
      counts[i] = sum.count;
      low[i] = sum.common == sum.any ? sum.common : -1;
    }
    return complete;
  });
}

// result = the rank-th smallest (from 1) |source - base| among those in histogram bin `bin`
int32_t select_delta(int64_t n, const void* source, int32_t code, const void* base,
                     int32_t base_code, uint32_t bin, int64_t rank, float* result,
                     int32_t threads) {
  return guarded([&] {
    std::vector<uint32_t> found;
    if (!collect(n, {source, code}, {base, base_code}, bin, threads, found)) return false;
    std::nth_element(found.begin(), found.begin() + (rank - 1), found.end());
    *result = float_of(found[static_cast<size_t>(rank - 1)]);
    return true;
  });
}

// result = {a.a, b.b, a.b} in float64, summed per block and then over the blocks in order
int32_t dot_products(int64_t n, const void* a, int32_t a_code, const void* b, int32_t b_code,
                     double* result, int32_t threads) {
  return guarded([&] {
    std::vector<double> partial(static_cast<size_t>(3 * ((n + kBlock - 1) / kBlock)), 0.0);
    const bool complete = parallel(n, threads, [&](int64_t first, int64_t last, int64_t) {
      for (int64_t block = first; block < last; ++block) {
        const int64_t start = block * kBlock;
        const int64_t size = block_size(n, block);
        float x[kBlock + kLanes];
        float y[kBlock + kLanes];
        Input{a, a_code}.read(start, size, [&](int64_t j, float value) { x[j] = value; });
        Input{b, b_code}.read(start, size, [&](int64_t j, float value) { y[j] = value; });
        std::fill(x + size, x + size + kLanes, 0.0f);
        std::fill(y + size, y + size + kLanes, 0.0f);
        double xx[kLanes] = {}, yy[kLanes] = {}, xy[kLanes] = {};
        for (int64_t j = 0; j < size; j += kLanes) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            const double left = x[j + lane];
            const double right = y[j + lane];
            xx[lane] += left * left;
            yy[lane] += right * right;
            xy[lane] += left * right;
          }
        }
        double* mine = partial.data() + 3 * block;
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          mine[0] += xx[lane];
          mine[1] += yy[lane];
          mine[2] += xy[lane];
        }
      }
    });
    std::fill(result, result + 3, 0.0);
    for (size_t i = 0; i < partial.size(); ++i) result[i % 3] += partial[i];
    return complete;
  });
}

}  // extern "C"
