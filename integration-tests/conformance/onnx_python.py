"""ONNX Runtime's own Python package on a model of the registry: one JSON line a call on standard input, the
scores of each but the first, which is the padding's and minus infinity."""
import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])

for line in sys.stdin:
    call = json.loads(line)
    inputs = {name: np.array(values, dtype=np.int64) for name, values in call["arguments"].items()}
    if call["method"] == "inputs":
        said = [{"name": one.name, "axes": len(one.shape)} for one in session.get_inputs()]
    else:
        said = session.run(["scores"], inputs)[0][:, 1:].tolist()
    print(json.dumps({"answer": said}), flush=True)
