r"""The tokens of a caption as caption metrics count them: Stanford's PTBTokenizer, without Java.

coco-caption scores captions after `PTBTokenizer -preserveLines -lowerCase` of CoreNLP 3.4.1 and
drops tokens that are punctuation. Its conventions are those of the Penn Treebank: `isn't` is `is`
and `n't`, `can not` is two words, `t-shirt` is one, `Mr.` and `U.S.` keep their periods, `(` is
`-lrb-`. This module says in rules of its own what that program does, and is compared with it token
by token (`tests/mm1_jax/evaluation/metrics/test_ptb_tokenizer.py`).

A rule may need to see what follows (`tail`); that counts for its length, but stays to be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

from mm1_jax.evaluation.metrics.longest_match import LongestMatch, Test

# The original drops brackets too, but as `-LRB-`; tokens are lower-cased first, so they stay.
_PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
_LINE_BREAKS = re.compile("[\n\r\v\f\u2028\u2029]")


def _unchanged(text: str) -> str:
    return text


class _Rule(NamedTuple):
    """What is matched, what must follow, and what becomes of it.

    keep    so many characters are the token, the others are read again; None: all
    token   matched text → token; None drops it
    """

    head: str
    tail: str = ""
    keep: int | None = None
    token: Callable[[str], str | None] = _unchanged


# ---- characters ----

# Inside of a class. A caption ends with a line feed, which counts as space for what follows.
_BLANK = r" \t\u00A0\u2000-\u200A\u3000"
_SPACE = rf"[{_BLANK}\n\u0085\u000B\u000C\r\u2028\u2029]"
_NO_URL = r' \t\n\f\r"<>|'
_DIGIT = r"[[:digit:]\u07C0-\u07C9]"
# Combining marks and modifiers that count as letters in a word, beside accents as HTML has them.
_MARKS = (
    r"\u00AD\u0237-\u024F\u02C2-\u02C5\u02D2-\u02DF\u02E5-\u02FF\u0300-\u036F\u0370-\u037D\u0384"
    r"\u0385\u03CF\u03F6\u03FC-\u03FF\u0483-\u0487\u04CF\u04F6-\u04FF\u0510-\u0525\u055A-\u055F"
    r"\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7\u0615-\u061A\u063B-\u063F\u064B-\u065E"
    r"\u0670\u06D6-\u06EF\u06FA-\u06FF\u070F\u0711\u0730-\u074F\u0750-\u077F\u07A6-\u07B1"
    r"\u07CA-\u07F5\u07FA\u0900-\u0903\u093C\u093E-\u094E\u0951-\u0955\u0962\u0963\u0981-\u0983"
    r"\u09BC-\u09C4\u09C7\u09C8\u09CB-\u09CD\u09D7\u09E2\u09E3\u0A01-\u0A03\u0A3C\u0A3E-\u0A4F"
    r"\u0A81-\u0A83\u0ABC-\u0ACF\u0B82\u0BBE-\u0BC2\u0BC6-\u0BC8\u0BCA-\u0BCD\u0C01-\u0C03"
    r"\u0C3E-\u0C56\u0D3E-\u0D44\u0D46-\u0D48\u0E30-\u0E3A\u0E47-\u0E4E\u0EB1-\u0EBC\u0EC8-\u0ECD"
)
# What Unicode has counted as letters or digits only since; they are in no word there.
_YOUNGER_RANGES = """
037F 0528-052F 0560 0588 05EF 0860-088E 08A1 08AD-08C9 0978 0980 09FC 0AF9 0C34 0C5A-0C5D 0C80
0CDD 0D04 0D54-0D5F 0DE6-0DEF 0E86 0E89 0E8C 0E8E-0E93 0E98 0EA0 0EA8-0EA9 0EAC 13F5-13FD
16F1-16F8 170D 171F 1878 191D-191E 19B0-19C0 19C8-19C9 1B4C 1C80-1CBF 1CF2-1CF3 1CFA 2C2F 2C5F
312E-312F 31BB-31BF 4DB6-4DBF 9FCD-9FFF A698-A69D A78F A794-A79F A7AB-A7F7 A8FD-A8FE A9E0-A9FE
AA7E-AA7F AB30-ABBF
"""
_ONCE_LETTERS = "\u1885\u1886"


def _span(first: str, last: str) -> range:
    return range(int(first, 16), int(last or first, 16) + 1)


_YOUNGER = {
    chr(c)
    for first, _, last in (item.partition("-") for item in _YOUNGER_RANGES.split())
    for c in _span(first, last)
}
_LETTER = rf"([[:letter:]{_MARKS}]|&[aeiouAEIOU](acute|grave|uml);)"
_APOSTROPHE = r"(['\u0092\u2019]|&apos;)"
_ANY_APOSTROPHE = r"(['\u0092\u2019`\u0091\u2018\u201B]|&apos;)"
_HYPHEN = r"[-_\u058A\u2010\u2011]"
_PLAIN = r"[[:letter:][:digit:]]"
_ALPHANUMERIC = rf"({_LETTER}|{_DIGIT})"
_AMPERSAND = r"(&|&amp;)"

# ---- words ----

_WORD = rf"{_LETTER}{_ALPHANUMERIC}*([.!?]{_LETTER}{_ALPHANUMERIC}*)*"
_CLITIC = rf"{_APOSTROPHE}([msdMSD]|re|ve|ll)"
_NOT = rf"n{_ANY_APOSTROPHE}t"
# A period before one of these is an abbreviation's, whatever the word.
_CLAUSE_MARK = r"[,;:\u3001]"
_ELIDED = rf"([dDoOlL]{_ANY_APOSTROPHE}{_PLAIN})?"
_COMPOUND = rf"{_ELIDED}{_PLAIN}+({_HYPHEN}{_ELIDED}{_PLAIN}+)*"
_INITIALS = r"[A-Za-z](\.[A-Za-z])"  # with * or +: U, U.S, U.S.A
_COUNTRIES = r"(Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(U\.K|U\.S\.S\.R)"
_ACRONYM = rf"({_INITIALS}*|{_COUNTRIES})"
_HYPHENATED = (
    rf"[A-Za-z0-9][A-Za-z0-9.,\u00AD]*(-([A-Za-z0-9\u00AD]+|({_INITIALS}+|{_COUNTRIES})\.))+"
)
_SLASHED = r"[A-Za-z0-9]+(-[A-Za-z]+){0,2}(\\?/[A-Za-z0-9]+(-[A-Za-z]+){0,2}){1,2}"
_FIRM_INITIALS = "[A-Z]+(([+&]|&amp;)[A-Z]+)+"  # AT&T
_WITH_APOSTROPHE = "|".join(
    [
        rf"{_APOSTROPHE}n{_APOSTROPHE}?",
        rf"[lLdDjJ]{_APOSTROPHE}",
        rf"(Dunkin|somethin|ol){_APOSTROPHE}",
        rf"{_APOSTROPHE}(em|till?|cause|[2-9]0s)",
        rf"[A-HJ-XZn]{_ANY_APOSTROPHE}[[:letter:]]{{2}}[[:letter:]]*",  # D'Angelo
        rf"[[:letter:]]+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z][[:letter:]]*",  # Shi'ite
        rf"O{_ANY_APOSTROPHE}o",
        r"cont'd\.?|'twas|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l",
    ]
)
_EXTENSIONS = (
    "bat|bmp|c|class|cgi|cpp|dll|doc|docx|exe|gif|gz|h|htm|html|jar|java|jpeg|jpg|mov|mp3|pdf|php"
    "|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip"
)

# ---- abbreviations ----

# The original repeats the period of one that may end a sentence. Punctuation is dropped, so here
# none is repeated.
_MONTH_OR_DAY = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mon|Tues?|Wed|Thu|Thurs|Fri"
_STATE = (
    "Ala|Ariz|[A]z|[A]rk|Calif|Colo|Conn|Ct|Dak|[D]el|Fla|Ga|[I]ll|Ind|Kans?|Ky|[L]a|[M]ass|Md|Mich"
    "|Minn|[M]iss|Mo|Mont|Neb|Nev|Okla|[O]re|[P]a|Penn|Tenn|[T]ex|Va|Vt|[W]ash|Wisc?|Wyo"
)
_FIRM = "Inc|Cos?|Corp|Pp?t[ye]s?|Ltd|Plc|Rt|Bancorp|Bhd|Assn|Univ|Intl|Sys"
_AFTER_NAME = r"Jr|Sr|Bros|(Ed|Ph)\.D|Blvd|Rd|Esq|Bldg|tel|est|ext|sq|etc|al|seq"
_ABBREVIATION = rf"({_MONTH_OR_DAY}|{_STATE}|{_FIRM}|{_AFTER_NAME})\."
_TITLE = (
    "Mr|Mrs|Ms|[M]iss|Drs?|Profs?|Sens?|Reps?|Attys?|Lt|Col|Gen|Messrs|Govs?|Adm|Rev|Maj|Sgt|Cpl"
    "|Pvt|Capt|Ste?|Ave|Pres|Lieut|Hon|Brig|Co?mdr|Pfc|Spc|Supts?|Det|Mt|Ft|Adj|Adv|Asst|Assoc|Ens"
    "|Insp|Mlle|Mme|Msgr|Sfc"
)
_TITLE_OR_INITIALS = (
    rf"({_TITLE}|vs|Alex|Wm|Jos|Cie|a\.k\.a|cf|TREAS|Ph|Invt|Elec|Natl|M[ft]g|Dept|{_ACRONYM})"
)
_BEFORE_NUMBER = r"(ca|figs?|prop|nos?|art|bldg|pp|op)\."
# Where a sentence is likely to start, an initial before it has ended another: `Plan B. The man`.
_SENTENCE_STARTS = (
    "[A](bout|ccording|dditionally|fter|n|s|t)?|[B]ut|[E]arlier|[H](e|er|ere|owever)|[I](f|n|t)"
    r"|[L]ast|[M](any|ore|r\.|s\.)|[N]ow|[O](nce|ne|ther|ur)|[S](he|ince|o|ome|uch)"
    "|[T](hat|he|heir|hen|here|hese|hey|his)|[W](e|hen|hile|hat)|[Y](et|ou)"
)

# ---- markup, addresses, numbers, symbols ----

_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_TAG = (
    rf"<([!?][A-Za-z\-][^>\r\n]*|{_NAME}( +({_NAME}|{_NAME} *= *('[^'\n]*'|\"[^\"\n]*\")))* */?"
    rf"|/{_NAME}) *>"
)
_URL_PATH_END = rf"[^{_NO_URL}.!?(){{}},\-]"
_FULL_URL = rf"https?://[^{_NO_URL}(){{}}]+{_URL_PATH_END}"
_HOST = rf"www\.([^{_NO_URL}.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}"
# The range from comma to underscore holds digits and upper-case letters.
_BARE_HOST = rf"([^{_NO_URL}`'.!?(){{}},-_$]+\.)+(com|net|org|edu)"
_LIKELY_URL = rf"({_HOST}|{_BARE_HOST})(/[^{_NO_URL}()]+{_URL_PATH_END})?"
_NO_MAIL = rf"{_NO_URL}(){{}}\u00A0"
_MAIL = rf"(&lt;|<)?[a-zA-Z0-9][^{_NO_MAIL}]*@([^{_NO_MAIL}.]+\.)*[^{_NO_MAIL}.]+(&gt;|>)?"
_DATE = rf"{_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}}"
_NUMBER = rf"[-+]?({_DIGIT}+|{_DIGIT}*([.:,\u00AD\u066B\u066C]{_DIGIT}+)+)"
_RAISED = r"[\u207A\u207B\u208A\u208B]?([\u2070\u00B9\u00B2\u00B3\u2074-\u2079]+|[\u2080-\u2089]+)"
_FRACTION = rf"({_DIGIT}{{1,4}}[- \u00A0])?{_DIGIT}{{1,4}}(\\?/|\u2044){_DIGIT}{{1,4}}"
_GAP = r"[- \u00A0]"
_PHONE = (
    rf"(\([0-9]{{2,3}}\)[ \u00A0]?|(\+\+?)?([0-9]{{2,4}}{_GAP})?[0-9]{{2,4}}{_GAP})"
    rf"[0-9]{{3,4}}{_GAP}?[0-9]{{3,5}}|((\+\+?)?[0-9]{{2,4}}\.)?[0-9]{{2,4}}\.[0-9]{{3,4}}\.[0-9]{{3,5}}"
)
_QUOTES = (
    rf"{_APOSTROPHE}|''|[`\u2018\u2019\u201A\u201B\u201C\u201D\u0091\u0092\u0093\u0094\u201E\u201F"
    r"\u2039\u203A\u00AB\u00BB]{1,2}"
)
_SMILEY = r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]"
_FACE = r"-\^x=~<>'"
_ASIAN_SMILEY = rf"[{_FACE}]_[{_FACE}]|\([{_FACE}][_.]?[{_FACE}]\)|\([\^x=~<>']-[\^x=~<>'`]\)"
_SYMBOL = (
    r"[+%&~\^|\\\u00A6-\u00A9\u00AC\u00AE-\u00BA\u00D7\u00F7\u0387\u05BE\u05C0\u05C3\u05C6\u05F3"
    r"\u05F4\u0600-\u0603\u0606-\u060A\u060C\u0614\u061B\u061E\u066A\u066D\u0703-\u070D\u07F6-\u07F8"
    r"\u0964\u0965\u0E4F\u1FBD\u2016\u2017\u2020-\u2023\u2030-\u2038\u203B\u203E-\u2042\u2044"
    r"\u207A-\u207F\u208A-\u208E\u2100-\u214F\u2190-\u2BFF\u3012\u30FB\uFF01-\uFF0F\uFF1A-\uFF20"
    r"\uFF3B-\uFF40\uFF5B-\uFF65]"
)


# ---- what becomes of a match ----


def _constant(token: str | None) -> Callable[[str], str | None]:
    return lambda text: token


def _without_soft_hyphens(text: str) -> str:
    return text.replace("\u00ad", "") or "-"


def _unbroken(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _phone(text: str) -> str:
    return _brackets(_unbroken(text))


def _brackets(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


def _ampersands(text: str) -> str:
    return re.sub("&amp;", "&", text, flags=re.IGNORECASE)


# TeX's quotes. Whether a straight one opens or closes is not asked: both are punctuation.
_QUOTES_OF = {"`": "\u0091\u2018\u201b\u2039", "'": "\u0092\u2019\u203a"} | {
    "``": "\u0093\u201c\u00ab",
    "''": '"\u0094\u201d\u00bb',
}
_TEX_QUOTES = str.maketrans({c: token for token, curly in _QUOTES_OF.items() for c in curly})


def _quotes(text: str) -> str:
    return text.replace("&apos;", "'").replace("&quot;", '"').translate(_TEX_QUOTES)


_FRACTIONS = str.maketrans(
    {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
)
_CURRENCIES = str.maketrans(
    {"\u00a2": "cents", "\u00a3": "#"} | dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$")
)


def _dashes(text: str) -> str:
    return "--" if len(text) in (3, 4) else text


# In order of precedence among matches of equal length.
_RULES = (
    _Rule(r"c[+][+]|(c|f)#"),
    _Rule("cannot", keep=3),
    _Rule("'twas|'tis", keep=2),
    _Rule("gonna|gotta|lemme|gimme|wanna", keep=3),
    _Rule(_TAG, token=_unbroken),
    _Rule(r"&(MD|mdash|ndash);|[\u0096\u0097\u2013\u2014\u2015]", token=_constant("--")),
    _Rule("&amp;", token=_ampersands),
    _Rule("&(HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);"),
    _Rule(_WORD, tail=_CLITIC, token=_without_soft_hyphens),
    _Rule(r"[A-Za-z\u00AD]*[A-MO-Za-mo-z]\u00AD*", tail=_NOT, token=_without_soft_hyphens),
    _Rule(_WORD, token=_without_soft_hyphens),
    _Rule(_WITH_APOSTROPHE),
    _Rule(rf"y{_APOSTROPHE}", tail="[[:letter:]]"),
    _Rule(_FULL_URL),
    _Rule(_LIKELY_URL),
    _Rule(_MAIL),
    _Rule(rf"@[a-zA-Z_][a-zA-Z_0-9]*|#{_LETTER}+"),
    _Rule(_CLITIC, tail="[^A-Za-z]", token=_quotes),
    _Rule(_NOT, token=_quotes),
    _Rule(_DATE),
    _Rule(_NUMBER, token=_without_soft_hyphens),
    _Rule(_RAISED),
    _Rule(_FRACTION, token=_unbroken),
    _Rule(r"[\u00BC-\u00BE\u2153-\u215E]", token=lambda text: text.translate(_FRACTIONS)),
    _Rule(
        rf"-(RRB|LRB|RCB|LCB|RSB|LSB)-|C\.D\.s|pro-|anti-|S{_AMPERSAND}(P-500|Ls)"
        rf"|Cap{_APOSTROPHE}n|c{_APOSTROPHE}est",
        token=_ampersands,
    ),
    _Rule(_SLASHED),
    _Rule(r"[A-Z]*$|#"),
    _Rule(
        r"[\u00A2-\u00A5\u0080\u20A0\u20AC\u060B\u0E3F\u20A4\uFFE0\uFFE1\uFFE5\uFFE6]",
        token=lambda text: text.translate(_CURRENCIES),
    ),
    _Rule(r"[A-Za-z]\.", tail=rf"{_SPACE}+({_SENTENCE_STARTS}|{_TAG}){_SPACE}", keep=1),
    _Rule(_BEFORE_NUMBER, tail=rf"{_SPACE}?[[:digit:]]"),
    _Rule(r"(pt[eyEY]|co)\.", tail=rf"[{_BLANK}](ltd|lim)"),
    _Rule(_ABBREVIATION, tail="[^][^]"),  # however a word could go on, as in `est.a`
    _Rule(_ABBREVIATION),
    _Rule(rf"{_TITLE_OR_INITIALS}\."),
    _Rule(_ACRONYM, tail=_SPACE),
    _Rule(rf"{_APOSTROPHE}[0-9][0-9]", tail=_SPACE),
    _Rule(rf"{_ALPHANUMERIC}+(\.{_ALPHANUMERIC}+)*\.({_EXTENSIONS})", tail=rf"({_SPACE}|[.?!,])"),
    _Rule(rf"{_WORD}\.", tail=_CLAUSE_MARK, token=_without_soft_hyphens),
    _Rule(_PHONE, token=_phone),
    _Rule('"|&quot;', token=_quotes),
    _Rule("<|&lt;", token=_constant("<")),
    _Rule(">|&gt;", token=_constant(">")),
    _Rule(_SMILEY, tail="[^A-Za-z0-9]", token=_brackets),
    _Rule(_ASIAN_SMILEY, token=_brackets),
    _Rule(r"\{", token=_constant("-LCB-")),
    _Rule(r"\}", token=_constant("-RCB-")),
    _Rule(r"\[", token=_constant("-LSB-")),
    _Rule(r"\]", token=_constant("-RSB-")),
    _Rule(r"[()]", token=_brackets),
    _Rule("-+", token=_dashes),
    _Rule(r"\.{3,5}|(\.[ \u00A0]){2,4}\.|[\u0085\u2026]", token=_constant("...")),
    _Rule(r"@+|#+|_+"),
    _Rule(r"\*+|(\\\*){1,3}"),
    _Rule(_CLAUSE_MARK),
    _Rule("[?!]+"),
    _Rule(r"[.\u00A1\u00BF\u037E\u0589\u061F\u06D4\u0700-\u0702\u07FA\u3002=/]"),
    _Rule(rf"{_HYPHENATED}\.", tail=_CLAUSE_MARK, token=_without_soft_hyphens),
    _Rule(_HYPHENATED, token=_without_soft_hyphens),
    _Rule(rf"{_COMPOUND}\.", tail=_CLAUSE_MARK),
    _Rule(_COMPOUND),
    _Rule(rf"{_FIRM_INITIALS}\.", tail=_CLAUSE_MARK, token=_ampersands),
    _Rule(_FIRM_INITIALS, token=_ampersands),
    _Rule("'", tail=r"[A-Za-z][^ \t\n\r\u00A0]", token=_quotes),
    _Rule(_CLITIC, token=_quotes),
    _Rule(_QUOTES, token=_quotes),
    _Rule("<<|>>"),
    _Rule(_SYMBOL),
    _Rule("&nbsp;", token=_constant(None)),
)


def _letter(character: str) -> bool:
    return character in _ONCE_LETTERS or (character.isalpha() and _known(character))


def _digit(character: str) -> bool:
    return character.isdecimal() and _known(character)


def _known(character: str) -> bool:
    return character <= "\uffff" and character not in _YOUNGER


_CLASSES: dict[str, Test] = {"letter": _letter, "digit": _digit}


@cache
def _lexer() -> LongestMatch:
    return LongestMatch([f"({rule.head})({rule.tail})" for rule in _RULES], _CLASSES)


@cache
def _parts(rule: _Rule) -> tuple[LongestMatch, LongestMatch]:
    return LongestMatch([rule.head], _CLASSES), LongestMatch([rule.tail], _CLASSES)


def _head_end(rule: _Rule, text: str, start: int, end: int) -> int:
    """Where the head ends of a match that ends with its tail; the longest head counts."""
    head, tail = _parts(rule)
    return max(
        middle
        for middle, _ in head.ends(text, start)
        if middle < end and any(last == end for last, _ in tail.ends(text, middle))
    )


def _lines(text: str) -> list[list[str]]:
    """Tokens, punctuation too, of every line."""
    lines: list[list[str]] = [[]]
    lexer = _lexer()
    position = 0
    while position < len(text):
        found = lexer.longest(text, position)
        if found is None:  # a space, or a character that is no part of any token
            if text[position] == "\n":
                lines.append([])
            position += 1
            continue
        end, number = found
        rule = _RULES[number]
        if rule.tail:
            end = _head_end(rule, text, position, end)
        if rule.keep is not None:
            end = position + rule.keep
        token = rule.token(text[position:end])
        if token is not None:
            lines[-1].append(token.lower())
        position = end
    return lines


@lru_cache(maxsize=8)
def tokenize(captions: tuple[str, ...]) -> tuple[str, ...]:
    """Lower-case tokens of each caption, joined by single spaces, without punctuation.

    The captions are read as one text of lines, as coco-caption does it: a caption that ends in an
    initial (`Plan B.`) keeps its period or not by the next one's first word. Other characters that
    break lines count as spaces here; there they shift all later captions by one.
    """
    text = "\n".join(_LINE_BREAKS.sub(" ", caption) for caption in captions)
    return tuple(
        " ".join(token for token in line if token not in _PUNCTUATION) for line in _lines(text)
    )
