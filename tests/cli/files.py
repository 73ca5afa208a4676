"""Inputs of a run, made without any package: a tiny llama folder, token files, a run file."""
import json
import random
import struct

CONFIG = {"model_type": "llama", "vocab_size": 256, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "eos_token_id": 0}
SHAPES = {"model.embed_tokens.weight": [256, 8], "model.norm.weight": [8], "lm_head.weight": [256, 8]} | {
    "model.layers.0." + name: shape
    for name, shape in {"input_layernorm.weight": [8], "post_attention_layernorm.weight": [8], "self_attn.q_proj.weight": [8, 8],
                        "self_attn.k_proj.weight": [4, 8], "self_attn.v_proj.weight": [4, 8], "self_attn.o_proj.weight": [8, 8],
                        "mlp.gate_proj.weight": [12, 8], "mlp.up_proj.weight": [12, 8], "mlp.down_proj.weight": [8, 12]}.items()}


def elements(shape):
    n = 1
    for extent in shape:
        n *= extent
    return n


def random_weights():
    rng = random.Random(1)
    return {name: [1.0 if len(shape) == 1 else rng.gauss(0, 0.3) for _ in range(elements(shape))] for name, shape in SHAPES.items()}


def write_safetensors(path, tensors, edit=lambda header: None):
    """tensors: name -> numbers, of the shape in SHAPES; `edit` changes the header before it is written."""
    header, data = {}, b""
    for name, numbers in tensors.items():
        bytes_of = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": SHAPES[name], "data_offsets": [len(data), len(data) + len(bytes_of)]}
        data += bytes_of
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_model(folder, config={}, tensors=None, edit=lambda header: None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    write_safetensors(folder / "model.safetensors", random_weights() if tensors is None else tensors, edit)
    return folder


def read_safetensors(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + length])
    return {name: raw[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]]
            for name, entry in header.items() if name != "__metadata__"}


def write_tokens(path, tokens):
    """Megatron's layout, int32, one document."""
    path.write_bytes(struct.pack(f"<{len(tokens)}i", *tokens))
    path.with_suffix(".idx").write_bytes(b"MMIDIDX\x00\x00" + struct.pack("<QBQQiqqq", 1, 4, 1, 2, len(tokens), 0, 0, 1))
    return path


def text(size):
    rng = random.Random(2)
    return bytes(rng.randrange(97, 123) for _ in range(size))
