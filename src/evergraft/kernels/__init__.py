"""Fast operators for what stands beside the sparse products in a model, and the bridge to the native library.

Nothing here knows of BERT: each operator is a function of tensors, with the gradients of the torch function that it
names, and takes that function's place in any model. Where the native library cannot serve (on a GPU, in float64, in a
graph that is being compiled), the operator calls torch instead.
"""
