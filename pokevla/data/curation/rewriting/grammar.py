"""English grammar for labels of one verb and one noun: -ing forms, plural nouns, articles."""

from __future__ import annotations

import re


def word_set(text: str) -> frozenset[str]:
    """The words of a list with commas."""
    return frozenset(text.split(","))


_VOWELS = "aeiou"
_DOUBLED = word_set("transfer,refer,permit,admit,control,compel,begin,forget,input,output,format,kidnap")
"""Verbs of several syllables whose last consonant is doubled."""
_PREFIX = re.compile(r"^(?:un|re|over|out)(?=[^aeiou])")
_BARE = (
    "sheep,fish,deer,people,children,men,women,feet,teeth,mice,geese,dice,cattle,clothes,knives,leaves,halves,loaves"
)
_PLURALS = frozenset(_BARE.split(",")) - {"sheep", "fish", "deer"}  # these may be one
_PAIRS = word_set(
    "scissors,tongs,pliers,tweezers,trousers,pants,jeans,shorts,glasses,sunglasses,goggles,headphones,earphones,"
    "clippers,shears,secateurs,binoculars,pajamas,pyjamas,tights,leggings,overalls,chopsticks,nutcrackers,forceps,"
    "gloves,shoes,socks,boots,slippers,sandals"
)
"""Things that are named, and held, as a pair."""
_ONE_IN_S = word_set(
    "bus,gas,lens,canvas,atlas,compass,christmas,iris,tennis,asparagus,hummus,couscous,cactus,octopus,molasses,series,"
    "species,chassis,bias,pancreas,alias,trellis,axis,mantis,pus,plus,citrus,lotus,apparatus,swiss,yes,sys"
)
_MASS = word_set(
    "asparagus,bacon,bread,broccoli,butter,cabbage,cement,cereal,cheese,chicken,chocolate,clay,coffee,cream,dirt,"
    "dough,dust,fabric,flour,foil,food,fish,fruit,garlic,ginger,glue,grass,hay,honey,hummus,ice,jam,juice,ketchup,"
    "lettuce,liquid,meat,milk,mortar,mud,oil,paint,paper,parsley,pasta,pastry,pepper,pork,rice,rubbish,salad,salt,"
    "sand,sauce,sawdust,snow,soap,soil,spinach,sugar,tape,tea,thread,tofu,trash,water,wine,wood,wool,yarn,yeast,"
    "yogurt,yoghurt,couscous,furniture,equipment,clothing,plastic,cutlery,rubber"
)
_YOU_SOUND = re.compile(r"^(?:uni(?!n|m)|us[aeiu]|ut[ei]|ukulele|uran|eu|ewe|ew|one\b|once\b|usb\b|u-|ufo\b)")
_SILENT_H = re.compile(r"^(?:hour|honest|honou?r|heir)")
_SPELLED_WITH_VOWEL = frozenset("aefhilmnorsx")
"""Letters whose names begin with a vowel: an SD card, an x-ray."""


def ing_form(verb: str) -> str:
    """`take` -> `taking`, `put` -> `putting`, `tie` -> `tying`; of several words the first one: `turning on`."""
    first, _, rest = verb.partition(" ")
    return f"{_ing(first)} {rest}" if rest else _ing(first)


def _ing(verb: str) -> str:
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye", "inge")) and len(verb) > 2:
        return f"{verb[:-1]}ing"
    if verb in _DOUBLED or _doubles(verb) or (_PREFIX.match(verb) and _doubles(_PREFIX.sub("", verb))):
        return f"{verb}{verb[-1]}ing"
    return f"{verb}ing"


def _doubles(verb: str) -> bool:
    """Whether a verb is one syllable that ends in one vowel and one consonant."""
    sounds = verb.replace("qu", "q")
    syllables = len(re.findall(r"[aeiouy]+", sounds))
    if syllables != 1 or len(sounds) < 2:
        return False
    before = sounds[-3] if len(sounds) > 2 else ""
    return sounds[-1] not in f"{_VOWELS}wxy" and sounds[-2] in f"{_VOWELS}y" and before not in tuple(_VOWELS)


def head_word(noun: str) -> str:
    """The word that a noun phrase is about: `chopping board` -> `board`, `bunch of keys` -> `bunch`."""
    return re.split(r" (?:of|with|for|in|on) ", noun, maxsplit=1)[0].split()[-1]


def is_plural(noun: str) -> bool:
    """Whether a noun phrase takes `them`."""
    head = head_word(noun)
    if head in _PLURALS or head in _PAIRS:
        return True
    return (
        head.endswith("s") and not head.endswith(("ss", "us", "is", "'s")) and head not in _ONE_IN_S and len(head) > 3
    )


def singular_and_plural(word: str) -> frozenset[str]:
    """A word and its likely other number: `box` and `boxes`."""
    forms = {word, f"{word}s"}
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        forms.add(f"{word}es")
    if word.endswith("y"):
        forms.add(f"{word[:-1]}ies")
    if word.endswith("ies"):
        forms.add(f"{word[:-3]}y")
    if word.endswith("es"):
        forms.add(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
    return frozenset(forms)


def with_article(noun: str) -> str:
    """A noun phrase with its indefinite article: `an onion`, `a pair of scissors`, `some water`."""
    head = head_word(noun)
    if head in _PAIRS:
        return f"a pair of {noun}"
    if is_plural(noun) or head in _MASS:
        return f"some {noun}"
    return f"{_article(noun)} {noun}"


def _article(noun: str) -> str:
    word = noun.split()[0]
    letters = re.match(r"[a-z]+", word)
    spelled = letters is not None and (len(letters[0]) == 1 or not re.search(r"[aeiouy]", letters[0]))
    if _YOU_SOUND.match(word):
        return "a"
    if _SILENT_H.match(word):
        return "an"
    if spelled and letters is not None:
        return "an" if letters[0][0] in _SPELLED_WITH_VOWEL else "a"
    return "an" if word[0] in _VOWELS else "a"
