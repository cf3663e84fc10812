# The parts that prompts are made of in all dialects, and their tokens. Which keys of a body hold prompts is not known here.
"""Messages, items and content blocks of OpenAI, Responses and Anthropic as one struct, and a walk over them.

Unknown kinds of blocks are walked alike: what they hold under the known names is counted, the rest costs nothing.
Media have fixed costs, since their size in tokens follows from pixels, pages and seconds, which are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from edgeproxy.chat.tokens import estimate

PER_MESSAGE: Final = 4  # tokens of a chat template around each message
_IMAGE: Final = 1100  # OpenAI: 765 for 1024 x 1024; Anthropic: 1,600 at most
_LOW_IMAGE: Final = 85  # OpenAI, "detail": "low"
_AUDIO: Final = 600  # a minute, at OpenAI's 10 a second
_FILE: Final = 5000  # a PDF of two or three pages; each is text and image
_MEDIA: Final = {
    "image_url": _IMAGE, "input_image": _IMAGE, "image": _IMAGE, "computer_screenshot": _IMAGE,
    "input_audio": _AUDIO, "file": _FILE, "input_file": _FILE, "document": _FILE,
}  # fmt: skip
_RAW: Final = msgspec.Raw(b"")


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = _RAW


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None
    custom: msgspec.Raw = _RAW


class _Detail(msgspec.Struct):
    detail: str | None = None


class _Source(msgspec.Struct):
    """Of an Anthropic document: text and blocks count, files have their fixed cost."""

    type: str | None = None
    data: msgspec.Raw = _RAW
    content: msgspec.Raw = _RAW


class Block(msgspec.Struct, gc=False):
    """A message, an item or a part of one. Big strings that are no text (base64) are never copied: they stay `Raw`."""

    type: str | None = None
    role: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    detail: str | None = None
    content: str | list[Block] | Block | None = None
    output: str | list[Block] | Block | None = None
    summary: str | list[Block] | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    arguments: msgspec.Raw = _RAW
    input: msgspec.Raw = _RAW
    image_url: msgspec.Raw = _RAW
    source: msgspec.Raw = _RAW


Blocks = str | Block | list[str | Block] | None
_decode_blocks = msgspec.json.Decoder(Blocks).decode
_decode_detail = msgspec.json.Decoder(_Detail).decode
_decode_source = msgspec.json.Decoder(_Source).decode
# Escapes of one alphabet or another, and of a language that is written in signs or a half of an emoji.
_LETTER: Final = re.compile(rb"\\u[0-2][0-9a-fA-F]{3}")
_SIGN: Final = re.compile(rb"\\u[0-9a-fA-F]{4}")
_DENSE: Final = 64  # bytes an object, or a list, of a body has at least on the average; else its objects are not looked at
_FEW: Final = 1000
_SHORT: Final = 8192  # bytes; not worth counting


def blocks_of(raw: bytes) -> int:
    """Tokens of a text, of messages, or of blocks. Raises ValueError or RecursionError when they have another shape."""
    if is_dense(raw, b"{"):
        raise ValueError("more objects than a prompt has")
    texts: list[str] = []
    more = _walk(_decode_blocks(raw), texts)
    return estimate("".join(texts).encode()) + more


def is_dense(raw: bytes, opening: bytes) -> bool:
    """Whether a body is made of brackets, to keep whoever walks it busy: 90 ms a MiB, where text takes 2."""
    return len(raw) > _SHORT and raw.count(opening) > max(_FEW, len(raw) // _DENSE)


def texts_of(texts: Sequence[str | int | list[int]]) -> tuple[int, int]:
    """How many prompts a list of texts, of tokens, or of lists of tokens is, and their tokens."""
    if texts and isinstance(texts[0], int):
        return 1, len(texts)
    words = [text for text in texts if isinstance(text, str)]
    lists = [text for text in texts if isinstance(text, list)]
    single = len(texts) - len(words) - len(lists)  # numbers: one prompt, as tokens
    # Each text is rounded up, by half a token on the average.
    tokens = estimate("".join(words).encode()) + len(words) // 2 + sum(map(len, lists)) + single
    return max(1, len(words) + len(lists)), tokens


def json_tokens(raw: msgspec.Raw) -> int:
    """Tokens of JSON that is shown to the model as it is or nearly so (tools); escapes count as what they stand for."""
    content = bytes(raw)
    if content in {b"", b"null", b"[]", b"{}"}:
        return 0
    if b"\\u" in content:
        content = _SIGN.sub("好".encode(), _LETTER.sub("я".encode(), content))
    return estimate(content)


def _walk(blocks: Blocks | Sequence[Block], texts: list[str]) -> int:
    """Collect the texts of blocks; the tokens of what is not text is returned."""
    if isinstance(blocks, str):
        texts.append(blocks)
        return 0
    if blocks is None:
        return 0
    tokens = 0
    for block in (blocks,) if isinstance(blocks, Block) else blocks:
        if isinstance(block, str):
            texts.append(block)
            continue
        if block.role is not None:
            tokens += PER_MESSAGE
        content = block.content
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            tokens += _walk(content, texts)
        if block.type is not None:  # messages of chat dialects have none, and none of what is below but calls
            tokens += _part(block, texts)
        if block.tool_calls is not None or block.function_call is not None or block.reasoning_content is not None:
            tokens += _calls(block, texts)
        if block.name is not None:
            texts.append(block.name)
    return tokens


def _part(block: Block, texts: list[str]) -> int:
    """What a block holds under the names that only typed blocks have."""
    text = block.text
    if text is not None:
        texts.append(text)
    kind = block.type
    if kind == "text":
        return 0
    texts.extend(filter(None, (block.thinking, block.refusal)))
    tokens = _walk(block.output, texts) + _walk(block.summary, texts)
    tokens += json_tokens(block.arguments) + json_tokens(block.input)
    cost = _MEDIA.get(kind or "")
    return tokens if cost is None else tokens + _media(block, cost, texts)


def _media(block: Block, cost: int, texts: list[str]) -> int:
    """Tokens of an image, a sound or a file."""
    url = bytes(block.image_url)
    if block.detail == "low" or (url.startswith(b"{") and _decode_detail(url).detail == "low"):
        return _LOW_IMAGE
    source = bytes(block.source)
    if block.type == "document" and source.startswith(b"{"):
        document = _decode_source(source)
        if document.type in {"text", "content"}:
            return json_tokens(document.data) + (_walk(_decode_blocks(bytes(document.content) or b"null"), texts))
    return cost


def _calls(block: Block, texts: list[str]) -> int:
    """The calls of an assistant's message, and what it reasoned."""
    if block.reasoning_content is not None:
        texts.append(block.reasoning_content)
    tokens = 0
    functions = [call.function for call in block.tool_calls or ()]
    for function in (*functions, block.function_call):
        if function is not None:
            texts.append(function.name or "")
            tokens += PER_MESSAGE + json_tokens(function.arguments)
    return tokens + sum(json_tokens(call.custom) for call in block.tool_calls or ())
