"""Files that other programs write and Sheaf reads: safetensors of every dtype and sharded, Megatron .bin/.idx."""
import json
import struct


def safetensors_files(folder):
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(3, 50, 7, generator=generator) * torch.logspace(-9, 6, 7)    # subnormal and infinite in fp16, all signs
    dtypes = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "i64": torch.int64,
              "i32": torch.int32, "i16": torch.int16, "u8": torch.uint8}
    tensors = {name: numbers.to(dtype) if dtype.is_floating_point else torch.arange(-5, 5).to(dtype) for name, dtype in dtypes.items()}
    tensors |= {"bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    tensors |= {name + ".as_fp32": tensors[name].float() for name in ("bf16", "fp16")}
    save_file(tensors, folder / "all.safetensors", metadata={"format": "pt", "note": "ä \"quoted\""})

    shards = {"model-00001-of-00002.safetensors": {"a": torch.full((2, 3), 1.5), "b": torch.arange(4)},
              "model-00002-of-00002.safetensors": {"c": torch.full((5,), -2.0).bfloat16()}}
    (folder / "sharded").mkdir()
    for name, held in shards.items():
        save_file(held, folder / "sharded" / name, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 66}, "weight_map": {tensor: name for name, held in shards.items() for tensor in held}}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "sharded" / "config.json").write_text('{"model_type": "test"}')


def write_megatron(path, tokens, sizes, documents, code):
    """The layout of Megatron-LM's IndexedDataset, written from its description and not by its code. `path` has no ending; sizes: tokens of
    every sequence; documents: the sequence that each begins with, and their number; code: 4 for int32, 8 for uint16."""
    import numpy

    tokens = numpy.asarray(tokens).astype({4: numpy.int32, 8: numpy.uint16}[code])
    tokens.tofile(path.with_suffix(".bin"))
    pointers = (numpy.cumsum([0, *sizes[:-1]]) * tokens.itemsize).astype(numpy.int64)
    with open(path.with_suffix(".idx"), "wb") as out:
        out.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(documents)))
        for part in (numpy.array(sizes, numpy.int32), pointers, numpy.array(documents, numpy.int64)):
            out.write(part.tobytes())


def megatron_files(folder):
    """Three documents: of two sequences, of none, of one; token i of the stream is (i * 7919) % 60000."""
    for name, code in (("u16", 8), ("i32", 4)):
        write_megatron(folder / name, [i * 7919 % 60000 for i in range(20)], [5, 4, 11], [0, 2, 2, 3], code)


def files(folder):
    safetensors_files(folder)
    megatron_files(folder)
