"""Common knowledge as multiple choice: does a merged model still know what the base knew?

The facts are plain (capitals, kinds, opposites, verb forms), written down for this example and free
for any use. No specialist is trained on them, so the task measures forgetting. The wrong choices
are answers to other questions of the same relation.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

CAPITALS = """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Ireland:Dublin Greece:Athens
Austria:Vienna Belgium:Brussels Denmark:Copenhagen Sweden:Stockholm Norway:Oslo Finland:Helsinki
Iceland:Reykjavik Poland:Warsaw Hungary:Budapest Romania:Bucharest Bulgaria:Sofia Croatia:Zagreb
Serbia:Belgrade Slovakia:Bratislava Slovenia:Ljubljana Estonia:Tallinn Latvia:Riga Lithuania:Vilnius
Ukraine:Kyiv Russia:Moscow Turkey:Ankara Albania:Tirana Cyprus:Nicosia Malta:Valletta Belarus:Minsk
Egypt:Cairo Morocco:Rabat Algeria:Algiers Tunisia:Tunis Libya:Tripoli Sudan:Khartoum Kenya:Nairobi
Ethiopia:Addis_Ababa Ghana:Accra Nigeria:Abuja Senegal:Dakar Uganda:Kampala Rwanda:Kigali
Zambia:Lusaka Zimbabwe:Harare Namibia:Windhoek Angola:Luanda Mozambique:Maputo Somalia:Mogadishu
Madagascar:Antananarivo Mali:Bamako Cameroon:Yaounde Botswana:Gaborone China:Beijing Japan:Tokyo
India:New_Delhi Pakistan:Islamabad Bangladesh:Dhaka Nepal:Kathmandu Thailand:Bangkok Vietnam:Hanoi
Cambodia:Phnom_Penh Laos:Vientiane Indonesia:Jakarta Malaysia:Kuala_Lumpur Philippines:Manila
Mongolia:Ulaanbaatar Afghanistan:Kabul Iran:Tehran Iraq:Baghdad Syria:Damascus Jordan:Amman
Lebanon:Beirut Qatar:Doha Kuwait:Kuwait_City Oman:Muscat Yemen:Sanaa Armenia:Yerevan Georgia:Tbilisi
Azerbaijan:Baku Uzbekistan:Tashkent Canada:Ottawa Mexico:Mexico_City Cuba:Havana Jamaica:Kingston
Haiti:Port-au-Prince Panama:Panama_City Honduras:Tegucigalpa Nicaragua:Managua Brazil:Brasilia
Argentina:Buenos_Aires Chile:Santiago Peru:Lima Colombia:Bogota Venezuela:Caracas Ecuador:Quito
Uruguay:Montevideo Paraguay:Asuncion Australia:Canberra New_Zealand:Wellington Fiji:Suva
"""
KINDS = """
bird:sparrow,eagle,robin,owl,pigeon,swan,duck,hawk,crow,parrot,penguin,ostrich,falcon,stork,gull
fish:salmon,trout,tuna,cod,herring,carp,sardine,mackerel,haddock,halibut,perch
insect:ant,bee,beetle,butterfly,mosquito,wasp,fly,cricket,moth,grasshopper,dragonfly,termite
mammal:dog,cat,horse,cow,whale,dolphin,elephant,mouse,rabbit,bear,wolf,monkey,tiger,goat,camel
reptile:snake,lizard,crocodile,turtle,alligator,tortoise,python,cobra,iguana,chameleon
fruit:apple,banana,pear,peach,plum,cherry,mango,grape,lemon,strawberry,melon,apricot,fig
vegetable:carrot,cabbage,spinach,broccoli,onion,lettuce,turnip,leek,celery,cauliflower,radish
tree:oak,pine,maple,birch,willow,elm,cedar,beech,spruce,poplar,fir,redwood
flower:tulip,daisy,lily,orchid,daffodil,marigold,sunflower,carnation,poppy
metal:iron,copper,zinc,lead,aluminium,tin,nickel,titanium,platinum
gas:oxygen,hydrogen,nitrogen,helium,neon,argon,methane,chlorine
colour:red,blue,green,yellow,purple,pink,brown,black,white,grey,crimson,turquoise
tool:hammer,saw,screwdriver,wrench,chisel,drill,axe,pliers,shovel,rake,spade
vehicle:car,bus,truck,bicycle,motorcycle,van,tractor,taxi,ambulance,tram
instrument:violin,piano,guitar,flute,trumpet,drum,cello,harp,clarinet,trombone,saxophone,oboe
sport:football,tennis,basketball,hockey,golf,rugby,baseball,volleyball,swimming,boxing
drink:tea,coffee,milk,beer,wine,juice,lemonade,cider,whisky,cocoa
garment:shirt,coat,skirt,jacket,sweater,dress,trousers,scarf,blouse,cardigan
furniture:table,chair,sofa,bed,desk,wardrobe,bookcase,bench,cupboard,stool
building:house,church,castle,hotel,palace,cottage,barn,temple,skyscraper,cathedral
profession:doctor,teacher,lawyer,nurse,engineer,baker,plumber,carpenter,farmer,dentist,architect
language:English,French,Spanish,German,Italian,Russian,Arabic,Japanese,Portuguese,Swedish,Korean
weapon:sword,gun,spear,dagger,rifle,bow,cannon,pistol
planet:Mars,Venus,Jupiter,Saturn,Mercury,Neptune,Uranus
disease:malaria,measles,cholera,tuberculosis,influenza,diabetes,leprosy
river:Nile,Amazon,Danube,Rhine,Thames,Ganges,Volga,Mississippi
continent:Africa,Asia,Europe,Antarctica
season:spring,summer,autumn,winter
relative:uncle,aunt,cousin,nephew,niece,grandmother
"""
OPPOSITES = """
hot:cold big:small tall:short old:young happy:sad fast:slow light:dark open:closed full:empty
rich:poor strong:weak hard:soft high:low wide:narrow long:short early:late clean:dirty loud:quiet
wet:dry heavy:light thick:thin deep:shallow near:far first:last good:bad right:wrong true:false
easy:difficult cheap:expensive safe:dangerous smooth:rough sharp:blunt sweet:sour brave:cowardly
alive:dead awake:asleep black:white day:night summer:winter north:south east:west up:down left:right
in:out before:after above:below inside:outside front:back top:bottom push:pull buy:sell win:lose
arrive:leave begin:end love:hate laugh:cry remember:forget accept:refuse attack:defend build:destroy
increase:decrease rise:fall float:sink teach:learn give:take borrow:lend question:answer
friend:enemy peace:war success:failure victory:defeat profit:loss health:illness birth:death
beauty:ugliness truth:lie hope:despair courage:fear wisdom:foolishness always:never
everything:nothing everywhere:nowhere many:few more:less maximum:minimum male:female king:queen
husband:wife entrance:exit import:export ancient:modern public:private simple:complex
guilty:innocent polite:rude generous:selfish humble:proud patient:impatient visible:invisible
possible:impossible legal:illegal honest:dishonest lucky:unlucky
"""
PAST = """
go:went see:saw take:took give:gave come:came eat:ate drink:drank write:wrote speak:spoke
break:broke drive:drove ride:rode rise:rose choose:chose freeze:froze steal:stole wake:woke
wear:wore tear:tore swear:swore know:knew grow:grew throw:threw blow:blew fly:flew draw:drew
begin:began swim:swam sing:sang ring:rang sink:sank shrink:shrank run:ran sit:sat win:won hang:hung
dig:dug stick:stuck strike:struck find:found bind:bound grind:ground think:thought buy:bought
bring:brought fight:fought catch:caught teach:taught seek:sought keep:kept sleep:slept sweep:swept
weep:wept feel:felt leave:left meet:met lead:led feed:fed hold:held tell:told sell:sold stand:stood
understand:understood make:made hear:heard say:said pay:paid lay:laid lose:lost shoot:shot get:got
forget:forgot spend:spent send:sent build:built lend:lent bend:bent have:had do:did fall:fell
hide:hid bite:bit shake:shook become:became forgive:forgave slide:slid shine:shone spin:spun
swing:swung light:lit
"""
PLURALS = """
child:children man:men woman:women foot:feet tooth:teeth goose:geese mouse:mice ox:oxen wolf:wolves
knife:knives life:lives wife:wives leaf:leaves shelf:shelves half:halves thief:thieves loaf:loaves
potato:potatoes tomato:tomatoes hero:heroes city:cities baby:babies story:stories country:countries
box:boxes church:churches cactus:cacti crisis:crises analysis:analyses phenomenon:phenomena
criterion:criteria bacterium:bacteria person:people bush:bushes glass:glasses party:parties
"""
PEOPLE = """
France:French Germany:German Italy:Italian Spain:Spanish Portugal:Portuguese Ireland:Irish
Greece:Greek Austria:Austrian Belgium:Belgian Denmark:Danish Sweden:Swedish Norway:Norwegian
Finland:Finnish Iceland:Icelandic Poland:Polish Hungary:Hungarian Romania:Romanian Russia:Russian
Turkey:Turkish Egypt:Egyptian Morocco:Moroccan Kenya:Kenyan Ghana:Ghanaian Nigeria:Nigerian
China:Chinese Japan:Japanese India:Indian Pakistan:Pakistani Nepal:Nepalese Thailand:Thai
Vietnam:Vietnamese Iran:Iranian Iraq:Iraqi Canada:Canadian Mexico:Mexican Cuba:Cuban
Brazil:Brazilian Argentina:Argentinian Chile:Chilean Peru:Peruvian Australia:Australian
Scotland:Scottish Wales:Welsh Netherlands:Dutch Switzerland:Swiss Israel:Israeli
"""
YOUNG = """
dog:puppy cat:kitten cow:calf horse:foal sheep:lamb goat:kid pig:piglet hen:chick duck:duckling
goose:gosling swan:cygnet bear:cub deer:fawn frog:tadpole kangaroo:joey owl:owlet
"""
SYMBOLS = """
hydrogen:H helium:He lithium:Li carbon:C nitrogen:N oxygen:O fluorine:F neon:Ne sodium:Na
magnesium:Mg aluminium:Al silicon:Si phosphorus:P sulfur:S chlorine:Cl argon:Ar potassium:K
calcium:Ca titanium:Ti chromium:Cr manganese:Mn iron:Fe cobalt:Co nickel:Ni copper:Cu zinc:Zn
bromine:Br silver:Ag tin:Sn iodine:I barium:Ba tungsten:W platinum:Pt gold:Au mercury:Hg lead:Pb
radium:Ra uranium:U plutonium:Pu
"""
FORMS = {
    "The capital of {} is": CAPITALS,
    "The opposite of {} is": OPPOSITES,
    "The past tense of the verb {} is": PAST,
    "One {}, two": PLURALS,
    "Someone who comes from {} is": PEOPLE,
    "A young {} is called a": YOUNG,
    "The chemical symbol for {} is": SYMBOLS,
}

NEIGHBOURS = 6  # different answers nearest in the list, from which three wrong ones are drawn


@dataclass(frozen=True)
class Fact:
    """One question of common knowledge with four different choices, the answer among them."""

    prompt: str
    answer: str
    choices: tuple[str, ...]


def pairs() -> list[tuple[str, str, str]]:
    """All facts as (form, subject, answer); form and subject together are unique."""
    rows = []
    for form, text in FORMS.items():
        for entry in text.split():
            subject, answer = entry.replace("_", " ").split(":")
            rows.append((form, subject, answer))
    for line in KINDS.split():
        kind, words = line.split(":")
        rows += [("The word {} names a kind of", word, kind) for word in words.split(",")]
    return rows


def facts(seed: int) -> list[Fact]:
    """All facts in a fixed mixed order, each with three wrong answers of the same relation.

    Wrong answers come from the neighbourhood in the list (countries near by, similar kinds), which
    makes them plausible. `seed` draws them and the order of the choices.
    """
    rng = random.Random(f"{seed}/facts")
    rows = pairs()
    found = []
    for place, (form, subject, answer) in enumerate(rows):
        near = sorted(range(len(rows)), key=lambda other: abs(other - place))
        related = dict.fromkeys(rows[other][2] for other in near if rows[other][0] == form)
        others = [text for text in related if text != answer][:NEIGHBOURS]
        choices = [answer, *rng.sample(others, 3)]
        rng.shuffle(choices)
        found.append(Fact(form.format(subject), answer, tuple(choices)))
    found.sort(key=lambda fact: hashlib.blake2b(fact.prompt.encode()).digest())
    return found
