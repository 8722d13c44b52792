"""Run a real llama.cpp server over HTTP: python llama_server.py MODEL.gguf chat|embedding.

Prints its address as the first line and serves until its standard input closes. A process of its
own: what it does wrong cannot take the tests with it.
"""

import os
import sys

import xllamacpp


def main() -> None:
    path, kind = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {os.path.basename(path).removesuffix(".gguf")}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_gpu_layers, params.n_ctx, params.n_parallel = 0, 2048, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    if kind == "embedding":
        params.embedding = True
        params.n_ctx = params.n_batch = params.n_ubatch = 512
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # taking a Server down may deadlock


if __name__ == "__main__":
    main()
