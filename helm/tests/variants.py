"""The ways of using the chart that the tests render, and the committed examples of them.

Run as a program it renders helm/examples/*.yaml again.
"""

import pathlib
import subprocess

import yaml

HELM = pathlib.Path(__file__).resolve().parent.parent
CHART = HELM / "rapport"
EXAMPLES = HELM / "examples"
# The version of Kubernetes that is rendered for, and whose schemas the documents are held against.
KUBERNETES = "1.34.0"

# Name of the example -> values files.
VARIANTS = {
    "minimal": [EXAMPLES / "minimal-values.yaml"],
    "gpu": [EXAMPLES / "minimal-values.yaml", CHART / "values-gpu.yaml"],
    "production": [CHART / "values-production.yaml"],
}


def helm(*arguments):
    return subprocess.run(["helm", *map(str, arguments)], capture_output=True, text=True, check=False)


def template(files, *arguments):
    """What `helm template` says: exit code, documents as text, errors as text."""
    values = [argument for file in files for argument in ("-f", file)]
    return helm("template", "rapport", CHART, "-n", "rapport", "--kube-version", KUBERNETES, *values, *arguments)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


if __name__ == "__main__":
    for name, files in VARIANTS.items():
        rendered = template(files)
        if rendered.returncode != 0:
            raise SystemExit(rendered.stderr)
        (EXAMPLES / f"{name}.yaml").write_text(rendered.stdout)
        print(f"rendered helm/examples/{name}.yaml")
