"""Triton's own Python client, over gRPC or HTTP, told what to call: one JSON line a call on standard input,
one answer each."""
import json
import sys

import numpy as np
from tritonclient.utils import InferenceServerException

protocol, address = sys.argv[1:3]
if protocol == "grpc":
    import tritonclient.grpc as triton
    metadata = {"as_json": True}
else:
    import tritonclient.http as triton
    metadata = {}
client = triton.InferenceServerClient(address)


# The first score is that of the padding: minus infinity, which JSON does not know.
def infer(model, inputs, version="", outputs=None, binary=True):
    tensors = []
    for name, values in inputs.items():
        values = np.array(values, dtype=np.int64)
        tensor = triton.InferInput(name, list(values.shape), "INT64")
        if protocol == "grpc":
            tensor.set_data_from_numpy(values)
        else:
            tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    wanted = None
    if outputs is not None:
        more = {} if protocol == "grpc" else {"binary_data": binary}
        wanted = [triton.InferRequestedOutput(name, **more) for name in outputs]
    result = client.infer(model, tensors, model_version=version, outputs=wanted, request_id="7")
    response = result.get_response(as_json=True) if protocol == "grpc" else result.get_response()
    return {"scores": result.as_numpy("scores")[:, 1:].tolist(), "version": response["model_version"], "id": response["id"]}


METHODS = {
    "infer": infer,
    "live": client.is_server_live,
    "ready": client.is_server_ready,
    "model_ready": client.is_model_ready,
    "server": lambda: client.get_server_metadata(**metadata),
    "model": lambda **of: client.get_model_metadata(**of, **metadata),
}

for line in sys.stdin:
    call = json.loads(line)
    try:
        said = {"answer": METHODS[call["method"]](**call["arguments"])}
    except InferenceServerException as error:
        said = {"status": str(error.status()), "message": error.message()}
    print(json.dumps(said), flush=True)
