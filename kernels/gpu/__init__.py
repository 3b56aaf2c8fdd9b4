"""Kernels for GPUs, in Triton, as operations of torch: `torch.ops.minibert_gpu.*`.

Each has its twin in PyTorch, a gradient where it is part of a network, and a form without numbers,
so that `torch.compile` and `torch.export` go through.  Importing one of the files imports Triton.

They compute in float32 (float64 of float64) whatever the dtype, and round once, at the end.  None
adds up by atomic operations: the same numbers give the same result to the last bit.

Tensors lie on a GPU, or anywhere where TRITON_INTERPRET=1 stood in the environment before Triton
was imported: its interpreter runs the same kernels in numpy.
"""
