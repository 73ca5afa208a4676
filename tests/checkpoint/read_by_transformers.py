"""read_by_transformers.py CHECKPOINT_TEST: folders that HfWriter wrote load in safetensors and in transformers, with the same logits."""
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

source = pathlib.Path(".cache/oracle/qwen3")
original = load_file(source / "model.safetensors")
oracle = load_file(source / "oracle.safetensors")
with tempfile.TemporaryDirectory() as target:
    subprocess.run([sys.argv[1], "--gtest_brief=1", "--gtest_filter=HfWriterForPython.*"], check=True,
                   env=os.environ | {"SHEAF_TEST_WRITE_TO": target})
    for name, dtype in (("single", torch.float32), ("sharded", torch.float32), ("bf16", torch.bfloat16)):
        folder = pathlib.Path(target) / name
        found = {}
        for file in folder.glob("*.safetensors"):
            found |= load_file(file)
        assert found.keys() == original.keys(), (name, found.keys() ^ original.keys())
        for key, tensor in original.items():
            assert found[key].dtype == dtype and torch.equal(found[key], tensor.to(dtype)), (name, key)
        if dtype == torch.float32:
            model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
            assert not any(report.values()), (name, report)
            with torch.no_grad():
                assert torch.equal(model.eval()(oracle["ids"]).logits, oracle["logits"]), name
print("ok")
