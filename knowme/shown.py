"""Words that are set up for somebody else: a text to work on, a part, a letter, a chat, a form.

Promises: pure; by the shape of a message first (a head and a colon, a question about "this", a line
to somebody and a name below), by words in English, Portuguese, Spanish and German second; time
linear in the length. In doubt a stretch is shown, not said.
Refuses to know: quotations, code and what our prompts fence (``spans.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from knowme.words import WORD

Span = tuple[int, int, str]
"""First character, the one after the last, and why it is foreign."""
SENTENCE_END = re.compile(r"(?<!\d)[.!?…]+[\"'”’)\]]*(?=\s|$)|\n|$")
FENCE_NEXT = re.compile(r"\s{0,9}(?:```|~~~)")


_GENRE = (
    r"(?:lyrics?|songs?|poems?|vers(?:es?|o|os)|chorus|haikus?|limerick|fables?|fairy ?tale|novels?"
    r"|screenplay|monolog\w*|dialog\w*|diálogo|fan ?fic\w*|character|persona|npc|backstory"
    r"|protagonist\w*|narrat(?:or|ion)|samples?|templates?|draft|essay|voice ?mail|memo|sms|tweet"
    r"|subtitles?|transcripts?|transcri\w+|excerpt|passage|paragraph|quotation|citation|biography"
    r"|obituary|testimonial|advert\w*|speech|eulogy|vows|homework|exercise|worksheet|phrase"
    r"|translation|cover letter|résumé|headline|flash ?cards?|quiz|riddle|joke|meme|dictation"
    r"|interview|two truths and a lie|true or false|role[- ]?play|lorem|cosplay|pangram|karaoke"
    r"|guest ?book|message in a bottle|post ?card|graffiti|prompt|story|scene|script|diary of"
    r"|letras?|canci[óo]n|canção|poemas?|rima|cuentos?|contos?|novelas?|relatos?|guião|guion"
    r"|roteiro|personage[mn]?|personaje|ficha|históri?as?|historias?|anuncios?|anúncios?|rascunho"
    r"|borrador|exemplos?|ejemplos?|frases?"
    r"|oraci[óo]n|tradu[çc][ãc]?[ãi]?[oó]n?|redacci[óo]n|redação"
    r"|recado|bilhete|postal|depoimento|testimonio|discurso|deberes|piada|chiste|entrevista"
    r"|anuncio|anúncio|biografía|biografia|modelo|legenda|subtítulos?|reseña"
    r"|liedtext|songtext|lied|gedicht|strophe|märchen|geschichte|roman|erzählung|drehbuch|rolle"
    r"|rollenspiel|figur|charakter(?:bogen)?|steckbrief|beispiel(?:satz)?|mustertext|muster|entwurf"
    r"|aufsatz|anschreiben|bewerbung|postkarte|zitat|auszug|absatz|satz|übersetzung|rede"
    r"|hausaufgabe|übung|diktat|witz|anzeige|bewertung|rezension|untertitel|vorlage)"
)
_ROUGH_GENRE = (
    r"(?:carta|correo|e-?mails?|mensagem|mensaje|brief|texts?|textos?"
    r"|messages?|nachricht|letters?|mail|posts?|comments?|comentario|kommentar"
    r"|captions?|quote|bio|ad|review|article|blog|page|examples?|sentences?|log|chat|screenshot"
    r"|ticket|form|survey|response|reply|resposta|respuesta|antwort|witness|patient\w*|paciente"
    r"|customer|client\w*|kunde|kundin|caller|student|speaker|guest|anonymous|reddit|user)"
)
"""What is a kind of text only where a colon stands behind it."""
_TASK = (
    r"(?:translat(?:e|ion|ed)|proof-?read|grammar|spell-?check\w*|paraphrase|rephrase|reword|tl;?dr"
    r"|summari[sz]e|summary|synopsis|bullet points?|gist|resumen|resumo|zusammenfassung|sum up"
    r"|transcribe|(?:say|mean|said|written) in [a-z]{4,12}"
    r"|what(?:'s| is| does| do| did)\b[^\n.?!]{0,50}\b(?:say|mean)s?\b(?! for)"
    r"|how (?:do|would|does|can|to|should) (?:\w+ )?(?:say|write|pronounce|spell)"
    r"(?= (?:this|that|it|in|the following)\b|\s*[:?\n])"
    r"|(?:fix|check|correct|improve) (?:my|the) (?:grammar|spelling|english|german|spanish"
    r"|portuguese)"
    r"|how does (?:this|that|it) (?:sound|read)"
    r"|(?:is|are) (?:this|that|it|these|my \w+)(?: \w+)? (?:correct|right|grammatical|natural)"
    r"|sounds? (?:natural|right|ok(?:ay)?)\b|(?:which|what) language|repeat after me"
    r"|who (?:wrote|said|says|sang|sings) (?:this|that|it)"
    r"|(?:complete|finish|continue|memori[sz]e|recite|rate|classify|label|transcribe|decode"
    r"|analy[sz]e|read|shorten|improve|polish|fix|edit|correct|rewrite|check|review|explain"
    r"|decrypt)"
    r" (?:(?:this|it|these|that)(?=(?: (?:text|sentence|paragraph|letter|e?-?mail|message|poem"
    r"|story"
    r"|lyrics|essay|post|bio|intro\w*|one|for me|please|pls|aloud|out loud"
    r"|back))?\s*(?:[:.?!\n–—-]|$))"
    r"|the (?:following|above|text|sentence|story|lyrics|poem|phrase)\b)"
    r"|(?:make|turn) (?:this|it|that) (?:sound|shorter|longer|formal|polite|rhyme|more (?:formal"
    r"|polite))"
    r"|tradu(?:z\w*|c\w*|ções|ção)|corrig\w+|revê|revisa|gramática|parafrase\w*|resum(?:a|ir)"
    r"|resum(?:e|es)(?=:| (?:ist|iss|est|ess|o|a|el|la|em|en)\w*\b)"
    r"|reescrev\w*|reescrib\w*"
    r"|(?:o que|que|qué|cómo|como)\b[^\n.?!]{0,50}\b(?:significa|quer dizer|quiere decir"
    r"|se (?:diz|dice)"
    r"|diz|dice|digo)\b|est[áa] (?:bem|bien) (?:escrit[oa]|dito|dicho)|est[áa] correct[oa]"
    r"|(?:em|en) que (?:língua|idioma|lengua)|repete|repita|repite|completa|completar|decora"
    r"|übersetz\w*|korrigier\w*|grammatik|rechtschreibung|fasse?\b[^\n.?!]{0,30}\bzusammen"
    r"|zusammenfass\w*|umschreib\w*|formulier\w*|was (?:heißt|bedeutet|steht|sagt|meint)"
    r"|wie (?:sagt|schreibt|heißt)(?: man)?|klingt (?:das|dies)|ist (?:das"
    r"|dies\w*)(?: \w+)? (?:richtig"
    r"|korrekt)|welche sprache|sprich nach|vervollständig\w*)"
)
_LANGUAGE_PLEASE = (
    r"(?:(?:in|into|to|auf|en|em|no|al|ins|para(?: o)?|por) )?(?:english|german|spanish|portuguese"
    r"|french|italian|inglês|alemão|espanhol|português|inglés|alemán|español|portugués|englisch"
    r"|deutsch|spanisch|portugiesisch)(?:,? (?:please|por favor|bitte|pls))?\s*[?.!]*"
)
_TASKED = re.compile(rf"\b{_TASK}", re.IGNORECASE)
_THIS_TEXT = re.compile(
    r"\b(?:this|these|that|below|above|following|it|isto|isso|estas?|este|esto|eso|esta|aquilo"
    r"|abaixo|abajo|acima|arriba|seguinte|siguiente|das|dies\w*|folgend\w*|unten|oben|hier)\b",
    re.IGNORECASE,
)
_BELOW = re.compile(
    r"\b(?:this|these|below|above|following|isto|isso|esto|estas?|este|abaixo|abajo|seguinte"
    r"|siguiente|dies\w*|folgend\w*|unten|hier)\b",
    re.IGNORECASE,
)
_ASKED_OF = re.compile(
    r"\W*(?:(?:hey|hi|hello|ok|okay|please|pls|so|and|now|quick|just|oi|olá|hola|hallo|bitte"
    r"|por favor|e|y|und|kannst du|könntest du|puedes|podrías|pode|podes|can|could|would|will)"
    r"\W+)*(?:you\W+|me\W+|please\W+|mir\W+|bitte\W+)*(?:what|how|which|who|is|are|does|do|o que"
    r"|que|qué|cómo|como|was|wie|welche|ist|help|check|quick)?",
    re.IGNORECASE,
)
_POINTS = re.compile(
    r"\b(?:this|these|that|here|(?:n|d|a)?est[ea]s?|(?:n|d)?isto|(?:n|d)?isso|(?:n|d)?ess[ea]s?"
    r"|daqui|aqui"
    r"|est[eo]s?|esta|esto|eso|ese|esa|aquí|das|dies\w*|daraus|davon|hier|folgend\w*|the|following)\b",
    re.IGNORECASE,
)
_OWN = re.compile(
    r"\b(?:i|i['’]\w+|me|my|mine|myself|we|we['’]\w+|us|our|eu|meus?|minhas?|mim|comigo|nós|nos"
    r"|nosso"
    r"|nossa|yo|mis?|mío|mía|conmigo|nosotros|nuestr\w+|ich|mich|mir|mein\w*|wir|uns|unser\w*"
    r"|let['’]?s"
    r"|estou|sou|tenho|moro|vivo|quero|posso|devo|soy|estoy|tengo|quiero|puedo|debo|trabalho|trabajo)\b",
    re.IGNORECASE,
)
_GREETS = re.compile(
    r"\W*(?:(?:hi|hello|hey|yo|good|morning|afternoon|evening|night|day|there|all|everyone|thanks"
    r"|thank|you"
    r"|so|much|ok|okay|great|cool|nice|perfect|awesome|sure|yes|no|yeah|yep|nope|wow|haha|lol"
    r"|please|sorry|right"
    r"|well|hmm|oh|ah|got|it|olá|oi|bom|boa|boas|dia|tarde|noite|obrigad[oa]|muito|sim|não|claro"
    r"|hola|buenos"
    r"|buenas|días|tardes|noches|gracias|muchas|sí|vale|hallo|guten|morgen|tag|abend|danke|schön"
    r"|ja|nein|gut"
    r"|super|hi|moin|servus|knowme|assistant)\W*)+",
    re.IGNORECASE,
)
_HAS_VERB = re.compile(
    r"\b(?:is|are|was|were|am|be|been|has|have|had|do|does|did|can|could|will|would|should|may"
    r"|might|looks?"
    r"|sounds?|seems?|feels?|makes?|goes|went|got|gets?|é|são|foi|está|estão|tem|parece|es|son"
    r"|fue|tiene|hay"
    r"|ist|sind|war|hat|haben|wird|kann|klingt)\b|['’](?:s|re|ve|ll|d)\b",
    re.IGNORECASE,
)
_MINE = re.compile(r"\b(?:i|i['’]\w+|we|we['’]\w+|eu|yo|ich|wir|nós|nosotros)\b", re.IGNORECASE)
_FIRST = re.compile(
    rf"{_MINE.pattern}|\b(?:my|our|meu|minha|mi|mis|mein\w*|moro|vivo|sou|soy|trabal?[hj]o|ten[hg]o"
    r"|chamo|llamo|prefiro|prefiero|nasci|nací|me|mich|mir)\b",
    re.IGNORECASE,
)
_PLAYED = re.compile(
    r"(?:(?:^|[.!?:;,\n]|\b(?:please|now|let's|lets|bitte|ok|okay|agora|ahora|jetzt"
    r"|hey))\s{0,3}(?:pretend|role-?play|make believe|imagine (?!my |how |what )|suppose\b"
    r"|assume (?:the role|that you|you|i)|act (?:as|like)|play (?:the (?:role|part)|a character|as)"
    r"|you are (?:now|playing)|from now on,? you|be my (?:character|opponent|enemy)|in character"
    r"|improvise|finge|finja|faz de conta|faça de conta|imagina|imagine-se|imaginemos|interpreta"
    r"|interprete|actúa como|atua como|age como|haz de cuenta|haz como|supón|suponha|supongamos"
    r"|stell dir vor|tu so|tun wir so|spiel(?:e|en wir)?\b(?= (?:die|den|eine?n?|mal|ein) )|nimm an"
    r"|angenommen)\b"
    r"|\blet['’]?s (?:play|pretend|act|imagine|do a (?:scene|skit|role))\b"
    r"|\byou(?:['’]ll)? be (?:the|a|my)\b"
    r"|\bi(?:['’]ll| will) be the\b|\b(?:a|the|this|our) (?:game|world|scenario|scene|play"
    r"|movie) (?:where|in which)\b"
    r"|\b(?:school|stage|theat(?:re|er)) (?:play|piece|production|show)\b|\b(?:my|these"
    r"|the) lines\b|\bon stage\b"
    r"|\b(?:once upon a time|era uma vez|érase|había una vez|es war einmal)\b"
    r"|\b(?:i dream(?:t|ed)|in (?:my|a|the) dream|sonhei|no meu sonho|soñé|en mi sueño|im traum"
    r"|geträumt)\b"
    r"|\b(?:simulate|re-?enact|act out|improvise|rehearse|simula|simule|ensaia|ensaya|übe|proben)\b"
    r"|\b(?:romanheld\w*|held(?:in)? (?:meines|der|des)|heroína|herói|héroe|heroine|hero of"
    r"|villain) \b"
    r"|\b(?:chorus|refrain|lyrics?|first line|last line|slogan|motto|refrão|estribillo) (?:is|are"
    r"|goes?|é|es|ist|lautet)\b"
    r"|\bwould say\b|\bdiria\b|\bdiría\b|\bwürde sagen\b"
    r"|\b(?:vamos|bora) (?:brincar|jogar|fingir|imaginar)\b|\bfaz-de-conta\b|\bbrinca(?:mos"
    r"|r) (?:que|de|aos?|às?)\b"
    r"|\b(?:juguemos|jugamos|vamos a jugar|juega|jugar) (?:a|que)\b|\b(?:obra|peça) de teatro\b"
    r"|\btheaterstück\b"
    r"|\b(?:lass uns|lasst uns|wir) (?:so tun|spielen)\b|\bso tun, als\b|\bauf der bühne\b"
    r"|\bmein text\b"
    r"|\b(?:tu és|tú eres|eres|és|du bist|you are|you['’]re) (?:o|a|el|la|der|die|das|the"
    r"|an?) \w+(?:,| e| y| und| and)"
    r" (?:eu|yo|ich|i)\b|\byou['’]?(?:re| are) (?:interviewing|questioning|treating|judging"
    r"|serving|guarding)\b"
    r"|\b(?:sou|soy|ich bin|i am|i['’]m) (?:o|a|el|la|der|die|the) (?:capitão|rei|rainha|príncipe"
    r"|princesa|capitán|rey"
    r"|reina|príncipe|princesa|lobo|brux[oa]|bruja|könig\w*|prinz\w*|hexe|wolf|kapitän|captain"
    r"|king|queen|prince\w*"
    r"|wizard|witch|wolf|dragon|great|mighty|dark)\b"
    r"|\b(?:in|from) (?:the )?(?:first person|voice of|perspective of|(?:point of )?view of"
    r"|shoes of"
    r"|eyes of|style of)\b|\b(?:as if|as though) (?:i|you|he|she|it) (?:was|were|am|wrote|had)\b"
    r"|\bna primeira pessoa\b|\ben primera persona\b|\bin der ich-?(?:form|perspektive)\b"
    r"|\bcomo se (?:eu )?(?:fosse|tivesse)|\bcomo si (?:yo )?(?:fuera|fuese|tuviera)"
    r"|\bals (?:wäre|ob) ich\b|\baus (?:der )?(?:sicht|perspektive)\b"
    r"|\b(?:na|da) (?:voz|pele|perspectiva|perspetiva) d[aeo]|\bdesde (?:la perspectiva"
    r"|el punto de vista)"
    r"|\bnarrated by\b|\bnarrad[oa] por\b|\berzählt von\b|\brole-?play\w*\b|\bfan ?fic\w*\b"
    r"|\b(?:my|our) (?!favou?rite)(?:[\w&]+ )?(?:character|protagonist|narrator|npc|alter ego"
    r"|persona)"
    r"\b|\bthe (?:protagonist|narrator)\b|\b(?:minha|a) personagem\b|\bo meu personagem\b|\b(?:mi"
    r"|el) personaje\b"
    r"|\b(?:meine|die) (?:figur|romanfigur|spielfigur)\b|\bmein (?:charakter|held)\b"
    r"|(?:^|[.!?:;,\n]|\b(?:please|you|you to|now|let's|and|me)) *(?:write|tell|compose|make up"
    r"|invent|give|generate|draft|create)(?: me| us)? (?:an?|the|some|"
    r"another)? ?(?:\w+ ){0,3}(?:story|tale|poem|song|novel|scene|monologue|dialogue|haiku|rap"
    r"|screenplay|script|sketch|limerick|joke|diary entry|chapter|backstory|speech|bio|fable)\b"
    r"(?![^.!?\n]{0,20} (?:about|for) (?:me|my)\b)"
    r"|\b(?:escreve|escreva|conta|conte|inventa|cria|crie|escribe|escriba|cuenta|cuéntame"
    r"|crea)(?:-?me)?"
    r" (?:uma?|una?|el|la|o|a|outra|otro) ?(?:\w+ ){0,2}(?:história|conto|poema|canção|cena"
    r"|monólogo|diálogo"
    r"|historia|cuento|canción|escena|relato|novela|discurso)\b"
    r"|\b(?:schreib|schreibe|erzähl|erzähle|erfinde|dichte)(?: mir| uns)? (?:eine?n?|das"
    r"|die) (?:\w+ ){0,2}"
    r"(?:geschichte|gedicht|lied|märchen|szene|monolog|dialog|roman|erzählung|rede)\b)",
    re.IGNORECASE,
)
"""A part is played, or a story told, from here on."""
_STANDS_IN = re.compile(
    r"\bon behalf of\b|\b(?:writing|typing|speaking|posting|texting|here|answering|talking)"
    r" (?:instead of|for|from|on|as|via|through) (?!(?:work|home|school|here|now"
    r"|today)\b)[^\n.!?]{0,30}"
    r"(?:phone|account|laptop|computer|behalf|place|name|device|tablet)\b"
    r"|\b(?:this is|it's|it is|i'm|i am|my name is) (?-i:[A-ZÀ-Þ])[\w'’-]{1,20},? (?:(?:on |from "
    r"|using |via )?\w+['’]s \w+"
    r"|(?:typing|writing|using|borrowing|speaking)\b)"
    r"|\b(?:hier (?:schreibt|spricht|ist)|aqui (?:é|fala|escreve)(?: [oa])?|aquí (?:escribe|habla"
    r"|está)"
    r"|soy|sou|ich bin) (?-i:[A-ZÀ-Þ])\w+,? (?:te escribo|escrevo|ich schreibe|no |en |vom |am "
    r"|desde |do |from |d[aeo] )"
    r"|\bhier (?:schreibt|spricht) |\b(?:grabbed|took|stole|has|borrowed) (?:the|my|her"
    r"|his) (?:keyboard|phone|laptop)\b"
    r"|\b(?:my \w+|(?-i:[A-ZÀ-Þ])\w+) (?:wants|would like|asked|needs) (?:me )?to (?:ask|tell|say"
    r"|write|type|add)\b"
    r"|\b(?:quer|quiere|will) (?:te |dir |-te )?(?:dizer|perguntar|escrever|decir\w*|preguntar\w*"
    r"|escribir\w*"
    r"|etwas (?:sagen|fragen))\b|(?<=[.!?] )(?:hi|hello|hallo|hola|olá)[!,.] "
    r"|\b(?:i am|i['’]m|this is|it['’]s|you get|ich bin|soy|sou|es ist|hier ist)(?: [oa]| el| la)?"
    r" (?:her|his|their|ihr\w*|sein\w*|su|(?:(?:older|little|big|younger) )?(?:irmã|irmão|mãe|pai"
    r"|madre|padre|hermana"
    r"|hermano|mulher|marido|mujer|marido|amig[oa]|prim[oa]|filh[oa]|hij[oa]) (?:d[aeo]"
    r"|de)) (?!(?:biggest|number)\b)"
    r"|\bso you(?:['’]re| are)? (?:get|got|stuck with|talking to) (?:me|her|him)\b"
    r"|(?:^|[.!?] )(?-i:[A-ZÀ-Þ])\w+(?: (?-i:[A-ZÀ-Þ])\w+)? (?:here|speaking|am apparat"
    r"|am telefon)\b"
    r"|(?:^|[.!?] )(?:aqu[ií]|hier) (?-i:[A-ZÀ-Þ])\w+[.,!:]|\b(?:hazte|faz-te|fazte"
    r"|gib dich) (?:pasar|passar|aus|als)\b"
    r"|\bnot (?-i:[A-ZÀ-Þ])\w+ (?:here|speaking|typing)\b"
    r"|\b(?:te|lhe|dir|you) (?:escribe|habla|escreve|fala|schreibt) |\b(?:fala|escreve|habla"
    r"|escribe) [oa] \w+ d[aeo]"
    r"|\b(?:em nome d[aeo]|da parte d[aeo]|en nombre de|de parte de|im namen (?:von|der|des"
    r"|meine\w)"
    r"|im auftrag von)\b"
    r"|\b(?:telemóvel|celular|móvil|teléfono|handy|conta|cuenta|konto) (?:d[aeo]|de|del|von|der"
    r"|des)"
    r" (?-i:[A-ZÀ-Þ])",
    re.IGNORECASE,
)
_CAUGHT = re.compile(
    r"(?<!you )(?<!you've )\b(?:found|overheard|copied|pasted|received|spotted|came across"
    r"|stumbled (?:up)?on|intercepted"
    r"|picked up|got|read|saw|heard)\s+(?:(?:this|these)(?: (?:note|letter|text|message|poem|flyer"
    r"|poster|sign|e?-?mail|voice ?mail|one))?(?=\s*[.!?:\n]| (?:on|in|at|from|under|online|taped"
    r"|written"
    r"|painted|scribbled|pinned)\b)|the following\b|(?:someone|somebody|a (?:guy|girl|man|woman|kid"
    r"|stranger)) (?:\w+ ){0,6}(?:say|saying|tell|telling|talking|shout\w*|yell\w*)\b)"
    r"[^.!?\n:]{0,80}[.!?:\n]"
    r"|(?<!i )\b(?:reads?|says?|saying|goes|displays|(?:está|estava) escrito|pone|ponía|steht"
    r"|stand)[:,]?(?= (?:i|i['’]m|my"
    r"|eu|yo|ich|moro|vivo|sou|soy)\b)[^.!?\n]*"
    r"|\b(?:encontrei|achei|recebi|ouvi|li|copiei|vi) (?:isto|este|esta"
    r"|isso)\b[^.!?\n:]{0,80}[.!?:\n]"
    r"|\b(?:encontrei|achei|recebi|ouvi|li|copiei) (?:um|uma)\b[^.!?\n:]{0,80}:"
    r"|\b(?:encontré|recibí|oí|leí|copié|vi|hallé) (?:esto|este|esta|un|una)\b[^.!?\n:]{0,80}:"
    r"|\b(?:das|dies|diesen?|diese|folgend\w+)(?: \w+){0,5} (?:gefunden|bekommen|gehört|gelesen"
    r"|kopiert|erhalten|aufgeschnappt)\b[^.!?\n:]{0,40}[.!?:\n]"
    r"|\b(?:einen?|eine) (?:\w+ ){0,5}(?:gefunden|bekommen|gehört|gelesen|erhalten)\b"
    r"[^.!?\n:]{0,40}:",
    re.IGNORECASE,
)
_SAID_OF = re.compile(
    r"(?:^|(?<=[.!?…]\s)|(?<=\n))[ \t*_>-]{0,6}([^\n.!?:]{1,90}?)[*_]{0,2}:(?=\s)"
)
_DASHED = re.compile(
    r"^[ \t*_#-]{0,6}((?:[^\n.!?:,]|\.(?= ?\d)){1,70}?)\s(?:[-–—|~]|=>|->)+\s", re.MULTILINE
)
_GENRED = re.compile(rf"\b{_GENRE}\b", re.IGNORECASE)
_ROUGHLY = re.compile(rf"\b{_ROUGH_GENRE}\b", re.IGNORECASE)
_FOR_ME = re.compile(
    r"\W*(?:(?:please|can you|help me) )*(?:write|draft|compose|prepare|send|escreve\w*|escrib\w*"
    r"|schreib\w*)\b"
    r"[^\n]*\b(?:my|our|me|minha|meu|mis?|mein\w*|unser\w*)\b",
    re.IGNORECASE,
)
"""A letter that the writer wants written: what they say behind it is what it is to say."""
_THIS_GENRE = re.compile(
    rf"\b(?:this|these|the following|est[ea]s?|isto|esto|dies\w*|folgend\w*) (?:\w+ )?"
    rf"(?:{_GENRE}|{_ROUGH_GENRE})\b",
    re.IGNORECASE,
)
_THIRD = re.compile(
    r"\b(?:he|she|they|his|her|their|him|them|someone|somebody|ele|ela|dele|dela|él|ella|er|sein\w*"
    r"|ihr\w*|alguém|alguien|jemand)\b|['’]s\b(?<!it['’]s)(?<!that['’]s)(?<!here['’]s)(?<!what['’"
    r"]s)(?<!let['’]s)"
    r"|\b(?:from|by|von|por|via|says?) (?-i:[A-ZÀ-Þ])\w"
    r"|\b(?:my|our|meu|minha|o meu|a minha|mi|mein|meine|unser) (?:\w+ )?(?:boss|mom|mum|mother|dad"
    r"|father|wife|husband|partner|girlfriend|boyfriend|brother|sister|son|daughter|friend"
    r"|neighbou?r"
    r"|colleague|roommate|flatmate|cousin|uncle|aunt|grand\w+|kid|teacher|doctor|client|patient|ex"
    r"|mãe|pai|irmã|irmão|mulher|marido|namorad[oa]|amig[oa]|vizinh[oa]|chefe|colega|filh[oa]"
    r"|av[óô]"
    r"|madre|padre|herman[oa]|mujer|esposa|esposo|novi[oa]|vecin[oa]|jef[ea]|hij[oa]|prim[oa]"
    r"|abuel[oa]"
    r"|mutter|vater|schwester|bruder|frau|mann|freundin|freund|nachbar\w*|chefin|chef|kollege"
    r"|kollegin"
    r"|sohn|tochter|oma|opa|tante|onkel)$",
    re.IGNORECASE,
)
_OWN_HEAD = re.compile(
    r"\b(?:updates?|news|notes?|ps|p\.s|btw|fyi|corrections?|reminders?|remember|infos?"
    r"|information|facts?"
    r"|about|important|heads[- ]up|also|plus|first(?:ly)?|second(?:ly)?|third(?:ly)?|thing|things"
    r"|quick"
    r"|anyway|status|today|yesterday|tomorrow|tonight|monday|tuesday|wednesday|thursday|friday"
    r"|saturday"
    r"|sunday|january|february|march|april|may|june|july|august|september|october|november|december"
    r"|morning|afternoon|evening|night|week|weekend|month|year|work|job|jobs|career|home|house"
    r"|family|kids"
    r"|children|pets?|health|diet|food|allerg\w+|hobb\w+|sports?|music|travel|money|finances?"
    r"|school|study"
    r"|studies|education|location|place|address|age|name|birthday|plans?|goals?|decisions?|decided"
    r"|preferences?|likes|dislikes|routine|habits?|skills?|languages?|details?|background|basics"
    r"|version|story short|honest\w*|confession|truth|problem|situation|issue|context|situation"
    r"|edit"
    r"|results?|however|because|so|but|and|or|well|ok|okay|yes|hi|hello|hey|thanks|please|know|mind"
    r"|record|file|save|store|keep|forget|good|bad|great|big|question|answers?|todo|idea|reason|case"
    r"|hint|tip"
    r"|warning|note to self|dear diary|diary|journal|log|mood|weather|sleep|meals?|breakfast"
    r"|lunch|dinner"
    r"|workout|exercise|training|project|meeting|stack|setup|budget|contact|phone|email"
    r"|nota|notas|novidades?|atualiza\w+|aviso|lembrete|lembra\w*|corre[çc]\w+|detalhes?|importante"
    r"|confesso|verdade|planos?|decis\w+|facto|fato|aliás|hoje|ontem|amanhã|trabalho|casa|família"
    r"|saúde"
    r"|guarda|olá|oi|bom|boa|sobre|dado|dados|nome|idade|morada|novedad\w*|noticias?|notícias?"
    r"|actualizaci\w+|recordatorio|recuerda|dato|datos|plan|planes|hoy|ayer|mañana|trabajo"
    r"|familia|salud"
    r"|hola|bueno|buena|nombre|edad|notiz\w*|neuigkeit\w*|neues|hinweis|korrektur|wichtig|übrigens"
    r"|erinnerung|merk\w*|fakt\w*|zu mir|über mich|kurz\w*|pläne|heute|gestern|morgen|arbeit"
    r"|zuhause"
    r"|familie|gesundheit|beruf|wohnort|essen|schule|entscheidung|achtung|frage|montag|dienstag"
    r"|mittwoch"
    r"|donnerstag|freitag|samstag|sonntag)\b",
    re.IGNORECASE,
)
_OF_WORDS = re.compile(
    r"\b(?:words?|sentences?|syllables?|verbs?|nouns?|adjectives?|tenses?|typos?|spelling|wording"
    r"|phrasing|grammar"
    r"|punctuation|commas?|clauses?|accent|tone|voice|lines?|rhymes?|metre|translat\w+|passive"
    r"|idioms?|slang"
    r"|letters?|characters?|editor|paragraphs?|bit|section|natural|fluent|formal|polite|essay"
    r"|caption|draft"
    r"|palavras?|frases?|sílabas?|verbos?|erros?|gralhas?|vírgulas?|rimas?|tom|natural|soa"
    r"|tradu\w+|biografia"
    r"|palabras?|oraci[óo]n\w*|errores|faltas|comas|tono|suena|formal|párrafo|biografía"
    r"|wörter|worte|wort|satz|sätze|silben|verben|fehler|tippfehler|kommas?|reim\w*|klingt|ton"
    r"|absatz|tonfall"
    r"|förmlich|höflich|buchstaben|übersetz\w+|rechtschreib\w*)\b",
    re.IGNORECASE,
)
_OF_PLAYS = re.compile(
    r"\b(?:act (?:one|two|three|four|five|[ivx\d]+)|scene|tale|bedtime|chapter|episode|verse"
    r"|stanza|script|cue"
    r"|interviewing|audition|curtain|acto|escena|papel de|capítulo|telón|ato|cena|peça|cortina"
    r"|akt|szene|vorhang"
    r"|kapitel|gute-nacht-\w+|as follows|like (?:so|this)|goes like|as?sim|lautet|así dice"
    r"|folgenderma\w+"
    r"|says|reads|wants|writes|diz|fala|escreve|dice|habla|escribe|sagt|schreibt|spricht)\b",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"\W*(?:hey|hi|hello|thanks|thank|yeah|yep|yes|no|nope|ok|okay|wow|haha|glad|that['’]s|sounds"
    r"|nice|good|great"
    r"|olá|oi|obrigad|sim|hola|gracias|sí|hallo|danke|ja|nein)\b",
    re.IGNORECASE,
)
_ORDERED = re.compile(
    r"(?:(?:please|can you|could you|would you|kannst du|bitte|puedes|pode) )*(?:rate|review"
    r"|check|correct"
    r"|fix|improve|judge|roast|edit|polish|proofread|rewrite|explain|repeat|type|say|recite|sing"
    r"|read"
    r"|complete|finish|continue|expand|shorten|simplify|classify|tag|label|translate|reply to"
    r"|respond to"
    r"|avalia|avalie|completa|complete|continua|continue|lê|leia|diz|diga|repete|evalúa|completa"
    r"|continúa"
    r"|lee|di|repite|bewerte|ergänze|vervollständige|lies|sag|wiederhole|antworte auf)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"[@<(\[]{0,2}[A-ZÀ-Þ][\w'’.-]{0,24}(?: [A-ZÀ-Þ][\w'’.-]{0,24}){0,3}[>)\]]?(?:"
    r" ?[(\[][^()\[\]]{1,30}[)\]])?"
    r"|[@<\[][\w .-]{1,30}[>\]]?|[A-Z]{1,2}\d{0,2}"
)
_CLOCK = r"\[?\(?(?:\d{1,2}[./-]\d{1,2}[./-]?\d{0,4},? )?\d{1,2}[:.h]\d\d(?::\d\d)?"
r"(?: ?[ap]\.?m\.?)?\)?\]?"
_STAMPED = re.compile(
    rf"^[ \t]*(?:{_CLOCK}\s*[-–—|]?\s*[@<]?[A-ZÀ-Þ][^\n:]{{0,40}}(?::\s|>\s)"
    rf"|[@<]?[A-ZÀ-Þ][\w'’.-]{{1,24}}(?: [A-ZÀ-Þ][\w'’.-]{{1,24}}){{0,2}}>?,?\s*[-–—|·•@]?\s*"
    rf"(?:(?:today|yesterday|hoje|ontem|hoy|ayer|heute|gestern)(?: at| às| a las| um)? )?{_CLOCK}"
    rf"(?: uhr)?:?[ \t]*(?:\n|$)|<[\w .-]{{1,30}}> \S)",
    re.IGNORECASE | re.MULTILINE,
)
_GREETING = (
    r"^[ \t]*(?:dear|hi|hello|hey|hallo|liebe[rs]?|sehr geehrte\w*|querid[oa]s?|estimad[oa]s?"
    r"|hola|olá"
    r"|oi|car[oa]s?|prezad[oa]s?|to whom it may concern)\b[^\n.?!]{0,40}[,!:]?[ \t]*\n"
)
_SIGNED = (
    r"^[ \t]*(?:(?:best|kind|warm|many)(?: (?:regards|wishes|greetings))?|regards|cheers|sincerely"
    r"|yours(?: \w+)?|xoxo|saludos|un (?:abrazo|saludo)|besos|atentamente|cordialmente|abra[çc]os?"
    r"|um abraço|beijos?|beijinhos|cumprimentos|atenciosamente|com os melhores cumprimentos"
    r"|(?:viele|liebe|herzliche|beste|schöne|mit freundlichen) grüßen?|gruß|lg|mfg"
    r"|vg{})[,!.]?[ \t]*\n+"
    r"[ \t]*(?-i:[A-ZÀ-Þ])[\w .'’-]{{0,30}}[ \t]*(?=\n|$)"
)
_ENDS_ON_THIS = re.compile(
    r"\b(?:told|said|wrote|sent|gave|dictated|posted|left|found|dict[óo]u?|ditou|disse|dijo|escribió"
    r"|escreveu|mandó|mandou|envió|enviou|hat|habe|haben)\b[^\n]{0,40}"
    r"\b(?:this|isto|isso|esto|eso|das|dies)(?: \w*(?:diktiert|geschrieben|geschickt|gesagt"
    r"|gegeben))?"
    r"\s*[.:]?\s*$",
    re.IGNORECASE,
)
"""Somebody did "this", and what follows is it."""
_OF_SOMEBODY = re.compile(
    r"\b\w+['’]s (?:\w+ )?(?:intro\w*|diary|journal|notes?|letter|bio|profile|message|words"
    r"|story|post"
    r"|e?-?mail|text|speech|statement|answer|essay|application|cv|resume|memoirs?)\b(?! (?:is"
    r"|was)\b)"
    r"|\b(?:exerc\w+|ejercicio|übung|aufgabe|lesson|lektion|lição|lección|unit|drill) \d+[.:)]",
    re.IGNORECASE,
)
_IMPERATIVE = re.compile(
    r"\W*(?:please|bitte|por favor|can you|could you|turn|make|give|list|convert|put|shorten|help"
    r"|resum\w+"
    r"|faz|hazme|mach|gib|passa|pásalo|pasa)\b",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    r"\A[^\n.?!]{2,60}[,:!][ \t]*\n(?:.|\n){10,}?\n[ \t]*(?:[^\n.?!]{2,45}[,!]?[ \t]*\n+[ \t]*"
    r"|[^\n.?!]{2,30} )"
    r"(?:Dra?\.? |Mrs?\.? )?[A-ZÀ-Þ][\w'’.-]{1,20}(?: [A-ZÀ-Þ][\w'’.-]{1,20}){0,3}\s*\Z"
)
"""The shape of a letter in whatever words: a line to somebody, a body, a line, a name."""
_TIMED = re.compile(
    r"^[ \t]*[A-ZÀ-Þ@][^\n]{1,60}?[ ,(\[]\d{1,2}[:.h]\d\d(?: ?[ap]\.?m\.?)?[)\]]?:?[ \t]*\n"
    r"|^[ \t]*[A-ZÀ-Þ@][\w .'’-]{1,40}\n[ \t]*\d{1,2}[:.h]\d\d(?: ?[ap]\.?m\.?)?[ \t]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_AGO = re.compile(
    r"^[ \t]*@?[A-ZÀ-Þ][\w .'’-]{1,40}?(?: ?[·•|,–—-] ?|\s\()(?:\d+ ?(?:s|m|h|d|w|min|hrs?|std"
    r"|tage?|días?|dias?|horas?)"
    r"|(?:ayer|ontem|hoy|hoje|gestern|heute|yesterday|today)[^\n]{0,20}?)(?: ago)?"
    r"\)?:?[ \t]*(?:\n|(?<=:)[ \t])",
    re.IGNORECASE | re.MULTILINE,
)
_TRIPLE = re.compile(r"(\"{3}|'{3})(?:.|\n)*?\1")
_CODE_LINE = re.compile(
    r"^[ \t]*(?:[\w.]+ ?[+-]?= ?\S[^\n]{0,80}"
    r"|[\w.]+\([^\n]{0,80}\);?|import \w+|return\b[^\n]*|[{}];?)"
    r"[ \t]*$",
    re.MULTILINE,
)
_HASHED = re.compile(r"^[ \t]*#+ [^\n]*", re.MULTILINE)
_LETTERS = (
    re.compile(
        rf"(?:{_GREETING})(?:[^\n]*\n){{1,80}}?"
        + _SIGNED.format(r"|love|thanks|thank you|obrigad[oa]|gracias|danke|dein\w?|euer"),
        re.IGNORECASE | re.MULTILINE,
    ),
    re.compile(_SIGNED.format(""), re.IGNORECASE | re.MULTILINE),
)
_HEADED = re.compile(
    r"\s*(?:Subject|Re|Fwd?|From|Assunto|Asunto|Betreff|Von|AW|WG): ?[^\n]{1,200}\n", re.IGNORECASE
)
_COMMENT = re.compile(
    r"/\*.*?(?:\*/|\Z)|^[ \t]*(?://|\*/|;;|--(?= ?\w)|REM )[^\n]*|<!--.*?(?:-->|\Z)|\{-.*?(?:-\}"
    r"|\Z)"
    r"|(?<=[;){}\]])[ \t]*(?://|#|--)[^\n]+|(?<=\w)\s*=\s*[\w\"'.()\[\]]{1,40}[ \t]+(?:#|//)[^\n]+"
    r"|^#!(?:[^\n]*\n)+?(?=\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_MANY = 4_000
"""Characters of a message's head in which what its writer asks of it is looked for."""


_SHOWN = "a text that is shown, not said"
_UNDER_HEAD = "a text under a head"
_UNDER = re.compile(
    r"\b(?:below|following|abaixo|seguinte|abajo|siguiente|folgend\w*|unten)\b", re.IGNORECASE
)


def shown(text: str, plain: str) -> Iterator[Span]:
    """Yield (start, end, why) of what a text shows rather than says.

    ``plain`` is the text with its fenced code blanked, sign for sign.
    """
    head = plain[:_MANY]
    for pattern, why in (
        (_PLAYED, "a part that is played"),
        (_STANDS_IN, "somebody who writes in another's place"),
        (_CAUGHT, "words that were found, not said"),
    ):
        match = pattern.search(head)
        if match:
            yield match.start(), len(text), why
    for start, end in _asked_about(head):
        if end < 0 and FENCE_NEXT.match(text, start):
            continue  # what is asked about is code, and ends where its fence does
        yield start, len(text) if end < 0 else end, _SHOWN
    yield from _strange(head)
    yield from _headed(text, plain)
    yield from _letters(text)
    yield from _posts(text)
    yield from _comments(text, plain)


def _asked_about(text: str) -> Iterator[tuple[int, int]]:
    """Yield from where to where (-1: the end) a text reaches that a sentence asks something of."""
    sentences = list(_stretches(text))
    for number, (start, end) in enumerate(sentences):
        more = bool(text[end:].strip())
        said = text[start:end]
        if number == 0 and more and _introduces(said):
            yield end, -1
            return
        if (at := _hands_over(said, more)) >= 0:
            yield start + at, -1
            return
    opener = text[: max(0, text.find("\n\n"))]
    if _opens(opener):
        yield len(opener), -1
    elif len(sentences) > 1 and _looks_back(text[slice(*sentences[-1])]):
        yield 0, sentences[-1][0]


def _introduces(said: str) -> bool:
    """Tell whether a first sentence presents what follows, and is nothing of the writer's own."""
    own = _OWN.search(said) is not None
    if _ENDS_ON_THIS.search(said) or _OF_SOMEBODY.search(said):
        return True
    if said.rstrip()[-1:] == "?" and _POINTS.search(said) and not own:
        return True
    of_words = _OF_WORDS.search(said) or _OF_PLAYS.search(said)
    if of_words and not own and not _SMALL_TALK.match(said):
        return True
    if said.rstrip()[-1:] in "!?":
        return False
    genre = _GENRED.search(said)
    presents = genre is not None and not (own and said[: genre.start()].strip(" \n*_#-"))
    presents = presents and not (
        _FOR_ME.match(said) or _MINE.search(said) or _HAS_VERB.search(said)
    )
    return presents or _THIS_GENRE.search(said) is not None


def _hands_over(said: str, more: bool) -> int:
    """Return where in or behind a sentence that sets a task its object begins; -1: nowhere."""
    task = _TASKED.search(said)
    if task is None:
        return -1
    colon = said.find(":", task.start())
    if 0 <= colon < len(said) - 3:
        return colon + 1
    asked = _ASKED_OF.match(said)
    led = asked is not None and asked.end() >= task.start()
    points = _THIS_TEXT.search(said) and not (_MINE.search(said) and not _BELOW.search(said))
    return len(said) if more and (led or said.rstrip()[-1:] == "?" or points) else -1


def _opens(opener: str) -> bool:
    """Tell whether a first paragraph only presents the second.

    A heading, a day, a time or the weather presents nothing: so a journal begins.
    """
    if not opener.strip() or _GREETS.fullmatch(opener):
        return False
    if _OWN.search(opener) and not _UNDER.search(opener):
        return False
    return bool(
        _BELOW.search(opener)
        or _IMPERATIVE.match(opener)
        or (_GENRED.search(opener) and not opener.lstrip().startswith("#"))
    )


def _looks_back(last: str) -> bool:
    """Tell whether a last sentence sets a task on what stands before it."""
    said = last.strip(" \n<-^()")
    if re.fullmatch(_LANGUAGE_PLEASE, said, re.IGNORECASE):
        return True
    words = len(said.split())
    return bool(_TASKED.search(said)) and words <= 12 and bool(_THIS_TEXT.search(said) or words < 4)


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for match in SENTENCE_END.finditer(text):
        if text[at : match.end()].strip():
            yield at, match.end()
        at = match.end()


_LANGUAGES = {
    language: frozenset(words.split())
    for language, words in {
        "en": "i the is and what does this my to of you can please how it that am live work i'm for"
        " with",
        "de": "ich und der das ist nicht mein meine bei heiße wohne seit ein eine dieser was wie"
        " bin habe"
        " mit auf arbeite dies bitte diesen",
        "pt": "eu moro em na uma um não meu minha é sou tenho isto isso você trabalho chamo com"
        " os ao à"
        " são do da",
        "es": "yo en y el los una un mi soy tengo llamo me con esto qué del las es al trabajo vivo"
        " estoy",
        "fr": "je j'habite suis et le les une mon ma chez dans à appelle travaille j'ai",
        "it": "io abito sono e il una mio mia lavoro chiamo gli vivo di",
    }.items()
}


def _strange(text: str) -> Iterator[Span]:
    """Yield sentences of another language than the one that asks about them."""
    told: list[tuple[int, int, str]] = []
    asker = ""
    for start, end in _stretches(text):
        language = _language(text[start:end])
        told.append((start, end, language))
        asks = "?" in text[start:end] or _TASKED.search(text, start, end)
        if language and not asker and (asks or _THIS_TEXT.search(text, start, end)):
            asker = language
    if not asker:
        return
    for start, end, language in told:
        near = {asker, language} in ({"pt", "es"}, {"it", "es"}, {"it", "pt"}, {"fr", "es"})
        if language and language != asker and not near:
            yield start, end, "a text in another language, which is asked about"


def _language(text: str) -> str:
    said = [word.casefold().replace("’", "'") for word in WORD.findall(text)]
    counts = {name: sum(word in known for word in said) for name, known in _LANGUAGES.items()}
    best = max(counts, key=lambda name: counts[name])
    others = max(count for name, count in counts.items() if name != best)
    return best if counts[best] >= 2 and counts[best] > others else ""


def _headed(text: str, plain: str) -> Iterator[Span]:
    """Yield what stands under a head that names a kind of text, a speaker, a part."""
    whole, text = text, plain[:_MANY] + text[_MANY:]
    last = max((match.start() for match in _FIRST.finditer(text)), default=-1)
    for match in _SAID_OF.finditer(text, 0, last + 1):
        head = match[1].strip(" *_-•·\t")
        behind = match.end()
        if not head or FENCE_NEXT.match(whole, behind):
            continue
        if why := _under(head, text, behind):
            yield behind, len(text), why
            return
        end = _line_end(text, behind)
        who = _NAMED.fullmatch(head) and not (_MINE.search(head) or _OWN_HEAD.search(head))
        if who and _FIRST.search(text, behind, end):
            yield match.start(), end, "words under a name"
    for match in _DASHED.finditer(text, 0, last + 1):
        if _bare(match[1]):
            yield match.end(), len(text), _UNDER_HEAD
            return
    title, _, below = text.partition("\n")
    named = title.strip(" *_#")
    if below and 0 < len(named) <= 70 and named[-1] not in ".!?,;:":
        if not _MINE.search(named) and _GENRED.search(named):
            yield len(title), len(text), _SHOWN


def _under(head: str, text: str, behind: int) -> str:
    """Return why what follows a head and a colon is not said by the writer, or ""."""
    mine = _MINE.search(head)
    pasted = text.startswith("\n\n", behind) and not mine
    kind = _GENRED.search(head) or _ORDERED.match(head) or (not mine and _ROUGHLY.search(head))
    if pasted or kind or _THIRD.search(head):
        return _SHOWN
    own = _OWN.search(head) or _OWN_HEAD.search(head)
    return "" if own else _UNDER_HEAD


def _bare(head: str) -> bool:
    """Tell whether what stands before a dash is a title, and not the writer's own."""
    if not _MINE.search(head) and _GENRED.search(head) and len(head.split()) <= 7:
        return True
    told = _OWN.search(head) or _OWN_HEAD.search(head) or _HAS_VERB.search(head)
    return not told and not _GREETS.fullmatch(head)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _letters(text: str) -> Iterator[Span]:
    if match := _HEADED.match(text):
        yield match.start(), len(text), "a mail"
    for match in _LETTERS[0].finditer(text):
        yield match.start(), match.end(), "a letter"
    for match in _LETTERS[1].finditer(text):
        yield 0, match.end(), "a letter"
    if match := _CLOSED.match(text):
        yield match.start(), match.end(), "a letter"


def _posts(text: str) -> Iterator[Span]:
    """Yield what stands below a name with a time, as chats and networks copy it."""
    for pattern in (_TIMED, _AGO, _STAMPED):
        if match := pattern.search(text):
            yield match.start(), len(text), "a conversation that was copied"


def _comments(text: str, plain: str) -> Iterator[Span]:
    patterns = [(_TRIPLE, text), (_COMMENT, plain)]
    if _CODE_LINE.search(text):
        patterns.append((_HASHED, text))
    for pattern, where in patterns:
        for match in pattern.finditer(where):
            yield match.start(), match.end(), "a comment in code"


__all__ = ["FENCE_NEXT", "SENTENCE_END", "Span", "shown"]
