"""Sheaf against HF + FSDP2 + torch.compile over shapes, on one GPU: lengths, micro-batches, vocabularies, head dims, packed documents.

python3 bench/gpu_shapes.py --sheaf build/cuda/src/sheaf [--only 512,packed] [--output FOLDER] [key.path=value ...]
Each line is a run of both, one after the other, of a model with 8 layers of Qwen3-1.7B's shape, but for what the line says. Prints a table
with tokens/s, peak memory of the GPU and both ratios (Sheaf / peer), each line when it is known, and writes all as JSON into the output folder.
"""
import argparse
import json
import pathlib
import tempfile

from gpu_train import arguments_of, compare

LAYERS = 8
# name: sequence length, micro-batch, changes to the model, tokens of a document
SHAPES = {"512 x 1": (512, 1, {}, 0), "512 x 16": (512, 16, {}, 0), "2048 x 8": (2048, 8, {}, 0), "4096 x 4": (4096, 4, {}, 0),
          "16384 x 1": (16384, 1, {}, 0), "vocabulary 32k": (4096, 4, {"vocab_size": 32000}, 0),
          "vocabulary 256k": (4096, 2, {"vocab_size": 262144}, 0),
          "head dim 64": (4096, 4, {"head_dim": 64, "num_attention_heads": 32, "num_key_value_heads": 8}, 0),
          "biases of q, k, v (Qwen2.5-1.5B)": (4096, 4, {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 1536,
                                                         "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2}, 0),
          "packed, documents of 512": (4096, 4, {}, 512)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheaf", required=True)
    parser.add_argument("--only", default="", help="lines whose name has one of these words, separated by commas")
    parser.add_argument("--output", default="")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    base = json.loads((pathlib.Path(__file__).parent.parent / "examples/qwen3_1p7b_config.json").read_text())
    found = {}
    print(f"{'8 layers':34}{'tokens/s':>10}{'compile':>10}{'GiB':>8}{'compile':>9}{'speed ratio':>13}{'memory ratio':>14}", flush=True)
    for name, (seq, micro_batch, changes, document) in SHAPES.items():
        if not any(word in name for word in arguments.only.split(",")):
            continue
        with tempfile.TemporaryDirectory(prefix="sheaf-shapes-") as folder:
            config = pathlib.Path(folder) / "config.json"
            config.write_text(json.dumps(base | {"num_hidden_layers": LAYERS} | changes))
            ours, peer = found[name] = compare(arguments_of(["--sheaf", arguments.sheaf, "--config", str(config), "--seq", str(seq), "--micro-batch", str(micro_batch),
                                                             "--document", str(document), "--peers", "compile", *arguments.settings]))
        print(f"{name:34}{ours['tokens_per_s']:10}{peer['tokens_per_s']:10}{ours['peak_gib']:8.1f}{peer['peak_gib']:9.1f}{peer['speed_ratio']:13.2f}"
              f"{peer['memory_ratio']:14.2f}", flush=True)
        if arguments.output:
            (pathlib.Path(arguments.output) / "gpu_shapes.json").write_text(json.dumps(found) + "\n")


main()
