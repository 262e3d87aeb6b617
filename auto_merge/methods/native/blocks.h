// Element types, inputs, outputs and the division of work into blocks, for kernels.cpp.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kBlock = 1024;          // elements handled together; float32 buffers fit L1
constexpr int64_t kBlocksPerThread = 64;  // below this much work a thread does not pay

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Float32 {
  using Raw = float;
  static float load(Raw raw) { return raw; }
  static Raw store(float value) { return value; }
  static bool finite(Raw raw) { return (bits_of(raw) & 0x7F800000u) != 0x7F800000u; }
};

struct BFloat16 {
  using Raw = uint16_t;
  static float load(Raw raw) { return float_of(static_cast<uint32_t>(raw) << 16); }
  static Raw store(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return static_cast<Raw>(is_nan ? 0x7FC0u : rounded);
  }
  static bool finite(Raw raw) { return (raw & 0x7F80u) != 0x7F80u; }
};

struct Float16 {
  using Raw = uint16_t;
  static float load(Raw raw) {
    const uint32_t sign = (raw & 0x8000u) << 16;
    // The multiplication moves the exponent and normalises subnormal numbers.
    const float scaled = float_of((raw & 0x7FFFu) << 13) * float_of(239u << 23);
    const uint32_t special = scaled >= 65536.0f ? 0x7F800000u : 0u;
    return float_of(sign | bits_of(scaled) | special);
  }
  static Raw store(float value) {
    const uint32_t sign = (bits_of(value) >> 16) & 0x8000u;
    const uint32_t bits = bits_of(value) & 0x7FFFFFFFu;
    const uint32_t magic = 126u << 23;  // adding 0.5 rounds at the last subnormal bit
    const uint32_t subnormal = bits_of(float_of(bits) + float_of(magic)) - magic;
    const uint32_t normal = (bits - (112u << 23) + 0xFFFu + ((bits >> 13) & 1u)) >> 13;
    const uint32_t special = bits > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t finite = bits < (113u << 23) ? subnormal : normal;
    return static_cast<Raw>(sign | (bits >= (143u << 23) ? special : finite));
  }
  static bool finite(Raw raw) { return (raw & 0x7C00u) != 0x7C00u; }
};

// Calls body(Type{}) for the element type with this code; the codes are in native/__init__.py.
template <class Body>
void with_type(int32_t code, Body body) {
  if (code == 0) body(Float32{});
  if (code == 1) body(BFloat16{});
  if (code == 2) body(Float16{});
}

struct Input {
  const void* data;
  int32_t code;

  // Calls use(j, value) for the elements start .. start + size.
  template <class Use>
  void read(int64_t start, int64_t size, Use use) const {
    with_type(code, [&](auto type) {
      using Type = decltype(type);
      const auto* raw = static_cast<const typename Type::Raw*>(data) + start;
      for (int64_t j = 0; j < size; ++j) use(j, Type::load(raw[j]));
    });
  }
};

struct Output {
  void* data;
  int32_t code;

  // Writes the values make(j) to the elements start .. start + size.
  template <class Make>
  void write(int64_t start, int64_t size, Make make) const {
    with_type(code, [&](auto type) {
      using Type = decltype(type);
      auto* raw = static_cast<typename Type::Raw*>(data) + start;
      for (int64_t j = 0; j < size; ++j) raw[j] = Type::store(make(j));
    });
  }

  // Counts NaN and infinite elements among start .. start + size, at most kBlock.
  int64_t num_invalid(int64_t start, int64_t size) const {
    int64_t count = 0;
    with_type(code, [&](auto type) {
      using Type = decltype(type);
      const auto* raw = static_cast<const typename Type::Raw*>(data) + start;
      uint16_t found = 0;  // as narrow as the elements, for the vector units
      for (int64_t j = 0; j < size; ++j) {
        found = static_cast<uint16_t>(found + (Type::finite(raw[j]) ? 0 : 1));
      }
      count = found;
    });
    return count;
  }
};

// Runs body(worker) on this thread and as many more as make up `workers`; false if memory ran out.
template <class Body>
bool on_threads(int64_t workers, Body body) {
  std::atomic<bool> complete{true};
  auto work = [&](int64_t worker) {
    try {
      body(worker);
    } catch (const std::bad_alloc&) {
      complete = false;
    }
  };
  std::vector<std::thread> pool;
  pool.reserve(static_cast<size_t>(std::max<int64_t>(workers, 1)));
  int64_t started = 1;
  try {
    for (; started < workers; ++started) pool.emplace_back(work, started);
  } catch (const std::system_error&) {
    // The system refuses more threads: this one does their share.
  }
  work(0);
  for (int64_t worker = started; worker < workers; ++worker) work(worker);
  for (auto& thread : pool) thread.join();
  return complete;
}

// Runs body(first block, last block, worker) over all blocks; false if memory ran out.
template <class Body>
bool parallel(int64_t n, int32_t threads, Body body) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  const int64_t useful = std::max<int64_t>(1, blocks / kBlocksPerThread);
  const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads, useful));
  return on_threads(workers, [&](int64_t worker) {
    body(blocks * worker / workers, blocks * (worker + 1) / workers, worker);
  });
}

int64_t block_size(int64_t n, int64_t block) { return std::min(kBlock, n - block * kBlock); }

}  // namespace
