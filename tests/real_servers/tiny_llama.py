"""Makes a tiny llama in Hugging Face's format, whose answers are known: ``tiny_llama.py FOLDER``.

Attention and feed-forward add nothing, so the next token depends on the last one alone.  The chat template
ends with the token that begins the answer: thinking and a call if tools are offered; thinking and a text if
there are none, or if the last message is an output.

Run by the Python of an environment with ``torch``, ``transformers`` and ``tokenizers``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Dict

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 256
END = "<|end|>"
# After the tag all answers are the same, because the tag is one token. A call needs no tag.
TEXT = ("</think>", "Hello ", "from ", "the gateway: ", "über 文 😀.")
ANSWERS = {
    "<|text|>": ("No need ", "to look.", *TEXT),
    "<|output|>": ("I have ", "looked.", *TEXT),
    "<|call|>": (
        "Look ",
        "it up.",
        "<tool_call>",
        '\n{"name": "exec_command", ',
        '"arguments": {"cmd": ',
        '"echo $((6*7))"}}\n',
        "</tool_call>",
    ),
}
TEMPLATE = """\
{%- for tool in tools or [] %}{{ tool | tojson }}
{% endfor %}
{%- for message in messages %}{{ message.role }}: {{ message.reasoning or "" }} {{ message.content or "" }}
{%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}
{% endfor %}
{%- if messages[-1].role == "tool" %}<|output|>{% elif tools %}<|call|>{% else %}<|text|>{% endif %}"""


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, trained on the documentation; each piece of an answer is one token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, special_tokens=[END, *ANSWERS])
    made.train([str(path) for path in sorted((ROOT / "docs").glob("*.md"))], trainer)
    pieces = dict.fromkeys(piece for answer in ANSWERS.values() for piece in answer)
    made.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, chat_template=TEMPLATE)


def model(words: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A llama that follows each piece of an answer with the next one."""
    torch.manual_seed(7)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=65536,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
        )
    )
    with torch.no_grad():
        block = made.model.layers[0]
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
        vectors = torch.nn.functional.normalize(torch.randn(len(words), WIDTH), dim=1)
        made.model.embed_tokens.weight.copy_(vectors)
        made.lm_head.weight.zero_()
        next_tokens: Dict[int, int] = {}
        for start, pieces in ANSWERS.items():
            chain = words.convert_tokens_to_ids([start, *pieces, END])
            next_tokens.update(zip(chain, chain[1:]))
        for token, following in next_tokens.items():
            made.lm_head.weight[following] += 6 * vectors[token]
    return made


def main(folder: str) -> None:
    words = tokenizer()
    words.save_pretrained(folder)
    model(words).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
