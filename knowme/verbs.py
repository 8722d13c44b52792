"""English verbs: their forms, and which word is which form of what.

Promises: pure tables, built once; a word that is not in them has no form. ``third`` and ``ing``
work for any verb.
Refuses to know: what a verb says of anyone.
"""

from __future__ import annotations

from typing import NamedTuple

BASE, THIRD, PAST, PARTICIPLE, ING = "base", "third", "past", "participle", "ing"


class Form(NamedTuple):
    """A word as a form of a verb. ``kinds`` are all that it may be: "bought" is two."""

    lemma: str
    kinds: frozenset[str]


_IRREGULAR = """
arise arose arisen|awake awoke awoken|bake baked baked|be was been|bear bore borne
beat beat beaten|become became become|begin began begun|bet bet bet|bite bit bitten
bleed bled bled|blow blew blown|break broke broken|breed bred bred|bring brought brought
build built built|burn burned burned|buy bought bought|catch caught caught|choose chose chosen
come came come|cost cost cost|cut cut cut|deal dealt dealt|dig dug dug|do did done
draw drew drawn|dream dreamed dreamed|drink drank drunk|drive drove driven|eat ate eaten
fall fell fallen|feed fed fed|feel felt felt|fight fought fought|find found found|fly flew flown
forget forgot forgotten|forgive forgave forgiven|freeze froze frozen|get got gotten
give gave given|go went gone|grow grew grown|hang hung hung|have had had|hear heard heard
hide hid hidden|hit hit hit|hold held held|hurt hurt hurt|keep kept kept|know knew known
lay laid laid|lead led led|learn learned learned|leave left left|lend lent lent|let let let
lie lay lain|light lit lit|lose lost lost|make made made|mean meant meant|meet met met
mow mowed mown|outgrow outgrew outgrown|overcome overcame overcome|pay paid paid|put put put
quit quit quit|read read read|rebuild rebuilt rebuilt|redo redid redone
rewrite rewrote rewritten|ride rode ridden|ring rang rung|rise rose risen|run ran run
say said said|see saw seen|sell sold sold|send sent sent|set set set|sew sewed sewn
shake shook shaken|shoot shot shot|show showed shown|shut shut shut|sing sang sung|sit sat sat
sleep slept slept|speak spoke spoken|spend spent spent|split split split|spread spread spread
stand stood stood|steal stole stolen|stick stuck stuck|strike struck struck|swear swore sworn
sweep swept swept|swim swam swum|take took taken|teach taught taught|tear tore torn
tell told told|think thought thought|throw threw thrown|undergo underwent undergone
understand understood understood|wake woke woken|wear wore worn|weave wove woven|win won won
withdraw withdrew withdrawn|write wrote written
"""
_REGULAR = """
accept accompany accomplish achieve acquire act adapt add adhere adjust admire adopt advise
afford aim allocate analyze announce appeal apply appreciate approve archive argue arrange
arrive ask assemble assist attempt attend audit audition avoid babysit backpack balance bandage
belong benchmark bicycle bike biopsy blog board boil bond book bookmark borrow bowl brainstorm
brew browse bruise budget bump calculate call camp cancel canoe canvass care carry carve caulk
celebrate challenge change charge chase chat check cheer cherish chop claim clean clear climb
clone close coach code collaborate collect color combine commit commute compete complete compose
compost configure confirm connect consider consult consume contact contain contest continue
contribute convert convince cook coordinate cope cough cover craft crash create crochet crop
cross cruise cry cultivate curate customize cycle dance date debug debut decide declare decline
decorate dedicate define defrost deliver demote deploy deposit deserve design despise destroy
develop devote diagnose die digitize direct discover discuss dislike dislocate display dive
divorce donate download doze draft dress drill drop earn edit educate email embrace embroider
emphasize enable encounter encourage end engage enjoy enrol enroll ensure enter entertain escape
establish estimate evaluate examine exchange exercise exhibit expand expect experience
experiment explain explore express extend face fail faint fast fax fear feature figure file film
finalise finalize finance finish fire fish fix focus follow fork forward foster found fracture
frame fry fund furnish gain garden gather get glue golf grab graduate grate grill guide hammer
hand handle happen harvest hate head help highlight hike hire hitchhike hoover hope host hug
hunt identify illustrate imagine immigrate implement import improve include incorporate increase
inherit injure inspect install insulate insure integrate interact interview introduce invent
invest invite invoice involve jog join journal juggle jump kayak keep knit knock label lack land
last laugh launch learn leave leverage lift like lint list listen live load lock log look love
lower mail maintain major manage march marinate marry massage master measure meditate memorize
mend mentor merge message microwave migrate miss mix modify monitor mourn move name nap need
negotiate network neuter notarize notice notify nurse obtain offer onboard open operate optimize
order organise organize outline outsource overhaul own pack paddle paint parent park participate
partner pass patch pay peel perform persuade phone photocopy photograph pick pitch plan plant
plaster play polish post postpone pour powder practice practise pray prefer prep prepare present
print prioritize process produce profile program promise promote propose protest prove provide
publish pull purchase pursue push qualify question race raise reach realize rebook reboot recall
receive recognize recommend record recover recycle redesign reduce refactor refine refuse
register rehearse reimburse reject relax release relocate rely remodel remove renew renovate
rent reorganize repaint repair replace replant reply report repot require reschedule rescue
research reserve reset resign resolve respond rest restore resume retire return reunite reveal
review revise roast rock rollerblade row sail save scale scan schedule score sculpt search
secure seek separate serve settle shadow share shift ship shop shortlist sign simmer simplify
skate sketch ski skip skydive smoke snap sneeze snorkel snowboard solder solve sort spay sponsor
sprain stage stare start stay stitch stop store strain stream strengthen stretch stroll struggle
study stumble submit subscribe succeed sue suffer suggest supervise support surf surprise
survive switch tackle tailor talk tape target taste tend test text thank tour track train
transfer transform transition translate travel treasure treat trek trust try turn tutor tweak
twist undergo uninstall unlock unpack unsubscribe update upgrade upload use utilize vacation
vaccinate vacuum value varnish verify visit visualise visualize volunteer vomit vote wait walk
want warm wash waste watch water weigh welcome weld whip whisk wish witness wonder work worry
wrap yearn
"""
_DOUBLED = frozenset(
    """
    admit babysit begin bet chat chop commit compel crop cut dig drop enrol forget get grab
    hit hug jog knit let log mop mow nap occur permit pet plan plot plug prefer prep program
    put quit refer reset rip rob run scan scrub set ship shop shut sit skip snap split spot
    step stop strip submit swap swim tap transfer travel trip unplug unwrap win wrap
    """.split()
) - {"mow", "travel"}
_PARTICIPLES = {"travelled": "travel", "travelling": "travel", "learnt": "learn", "dreamt": "dream"}


def third(lemma: str) -> str:
    """Return the form for he, she and it."""
    odd = {"be": "is", "have": "has", "do": "does", "go": "goes"}
    if lemma in odd:
        return odd[lemma]
    if lemma.endswith(("s", "x", "z", "ch", "sh", "o")):
        return lemma + "es"
    if lemma.endswith("y") and lemma[-2:-1] not in tuple("aeiou"):
        return lemma[:-1] + "ies"
    return lemma + "s"


def ing(lemma: str) -> str:
    """Return the form that ends in -ing."""
    if lemma in ("be", "see", "free", "flee", "agree", "dye"):
        return lemma + "ing"
    if lemma.endswith("ie"):
        return lemma[:-2] + "ying"
    if lemma in _DOUBLED:
        return lemma + lemma[-1] + "ing"
    return (lemma[:-1] if lemma.endswith("e") else lemma) + "ing"


def _past(lemma: str) -> str:
    if lemma.endswith("e"):
        return lemma + "d"
    if lemma.endswith("y") and lemma[-2:-1] not in tuple("aeiou"):
        return lemma[:-1] + "ied"
    return lemma + (lemma[-1] if lemma in _DOUBLED else "") + "ed"


def _built() -> tuple[dict[str, Form], dict[str, str]]:
    """Return every form, and the past of each lemma."""
    pasts: dict[str, tuple[str, str]] = {}
    for lemma in _REGULAR.split():
        pasts[lemma] = (_past(lemma), _past(lemma))
    for line in _IRREGULAR.replace("\n", "|").split("|"):
        if line:
            lemma, past, participle = line.split()
            pasts[lemma] = (past, participle)
    kinds: dict[str, dict[str, set[str]]] = {}
    for lemma, (past, participle) in pasts.items():
        for word, kind in (
            (lemma, BASE),
            (third(lemma), THIRD),
            (past, PAST),
            (participle, PARTICIPLE),
            (ing(lemma), ING),
        ):
            kinds.setdefault(word, {}).setdefault(lemma, set()).add(kind)
    for word, lemma in _PARTICIPLES.items():
        known = {ING} if word.endswith("ing") else {PAST, PARTICIPLE}
        kinds.setdefault(word, {})[lemma] = known
    forms = {}
    for word, by_lemma in kinds.items():
        # A word of two verbs ("found", "lay", "left") is the one whose base it is not.
        lemma = max(by_lemma, key=lambda one: (one != word, len(by_lemma[one])))
        forms[word] = Form(lemma, frozenset(by_lemma[lemma]))
    return forms, {lemma: past for lemma, (past, _) in pasts.items()}


FORMS, PASTS = _built()


def form(word: str) -> Form | None:
    """Return what a word in lower case is a form of, or None."""
    return FORMS.get(word)


def past(lemma: str) -> str:
    """Return the simple past of a verb; a verb that is not known is regular."""
    return PASTS.get(lemma) or _past(lemma)


__all__ = [
    "BASE",
    "FORMS",
    "ING",
    "PARTICIPLE",
    "PAST",
    "THIRD",
    "Form",
    "form",
    "ing",
    "past",
    "third",
]
