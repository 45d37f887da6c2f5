# Golden descriptions of the families of decoders, by transformers and gguf.
#   pip install transformers torch gguf && python tests/oracles/make-families.py
# Writes golden/families.json: for each tiny model its config.json, the shapes of its tensors (of the last
# layer, and outside the layers), their names in GGUF, the rotation frequencies of its kinds of layer, and
# which layers slide.
import json
import pathlib

import torch
from gguf import MODEL_ARCH, get_tensor_name_map
from transformers import AutoConfig, AutoModelForCausalLM

here = pathlib.Path(__file__).parent / "golden"
sizes = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=8, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
cases = {
    "llama": ("llama", dict(rope_theta=100000.0, tie_word_embeddings=True)),
    "llama-biased": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama-3": ("llama", dict(rope_theta=500000.0, rope_scaling=llama3, head_dim=16)),
    "llama-linear": ("llama", dict(rope_scaling=dict(rope_type="linear", factor=4.0))),
    "llama-yarn": ("llama", dict(head_dim=64, rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64))),
    "mistral": ("mistral", dict(sliding_window=64)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2-sliding": ("qwen2", dict(use_sliding_window=True, sliding_window=32, max_window_layers=5)),
    "qwen3": ("qwen3", dict(head_dim=16, rope_theta=1000000.0)),
    "gemma3": ("gemma3_text", dict(head_dim=16, query_pre_attn_scalar=64, sliding_window=32)),
    "phi3": ("phi3", dict(sliding_window=100)),
    "phi3-partial": ("phi3", dict(partial_rotary_factor=0.5, hidden_size=64)),
}
arches = dict(llama="LLAMA", mistral="LLAMA", qwen2="QWEN2", qwen3="QWEN3", gemma3="GEMMA3", phi3="PHI3")
result = {}
for name, (kind, extra) in cases.items():
    config = AutoConfig.for_model(kind, **{**sizes, **extra})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()
              if ".layers." not in key or ".layers.7." in key}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    names = get_tensor_name_map(MODEL_ARCH[arches[name.split("-")[0]]], config.num_hidden_layers)
    rotary = type(model.model.rotary_emb)(config=config)
    frequencies = {key: value.tolist() for key, value in rotary.named_buffers() if key.endswith("inv_freq") and "original" not in key}
    attention = {key: value for key, value in vars(rotary).items() if key.endswith("attention_scaling")}
    result[name] = dict(
        config=config.to_dict(),
        shapes=shapes,
        gguf={key: names.get_name(key, try_suffixes=(".weight", ".bias")) for key in shapes},
        frequencies=frequencies,
        attention=attention,
        sliding=[kind == "sliding_attention" for kind in getattr(config, "layer_types", None) or []],
    )
(here / "families.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
