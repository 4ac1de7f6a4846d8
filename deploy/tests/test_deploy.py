"""The images, the compose file, the dashboards and the OTLP collector's file, as far as they can
be checked without a Docker engine."""

import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
SERVICES = ["cleaner", "collector", "feature-store", "scorer", "trainer"]


def run(*arguments):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False)


def instructions(text):
    """The Dockerfile's instructions as (name, rest), with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(found):
    """Stage name -> (base, its instructions)."""
    result, name = {}, None
    for instruction, rest in found:
        if instruction == "FROM":
            base, _, alias = rest.partition(" AS ")
            name = alias or "final"
            result[name] = (base, [])
        elif name:
            result[name][1].append((instruction, rest))
    return result


def compose_problems(document):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(document, file)
        file.flush()
        return run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file.name)


class Dockerfile(unittest.TestCase):
    def setUp(self):
        self.text = DOCKERFILE.read_text()
        self.found = instructions(self.text)
        self.stages = stages(self.found)

    def test_the_linter_has_nothing_to_say(self):
        result = run("hadolint", DOCKERFILE)
        self.assertEqual((result.returncode, result.stdout), (0, ""))

    def test_the_linter_notices_a_mistake(self):
        with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
            file.write(self.text.replace("rm -rf /var/lib/apt/lists/*", "true"))
            file.flush()
            self.assertIn("DL3009", run("hadolint", file.name).stdout)

    def test_there_is_a_way_to_build_and_run_every_service(self):
        for service in [*SERVICES, "rapportctl"]:
            self.assertIn(f"build-{service}", self.stages)
            self.assertIn(f"runtime-{service}-cpu", self.stages)
        self.assertIn("runtime-trainer-cuda", self.stages)
        self.assertEqual(self.stages["build-trainer"][0], "build-torch")
        self.assertEqual(self.stages["runtime-scorer-cpu"][0], "runtime-onnx")

    def test_every_stage_stands_on_an_argument_or_an_earlier_stage(self):
        arguments = {rest.split("=")[0] for instruction, rest in self.found if instruction == "ARG"}
        seen = []
        for name, (base, body) in self.stages.items():
            parts = re.findall(r"\$\{(\w+)\}", base)
            self.assertTrue(parts or base in seen, f"{name} stands on {base}")
            self.assertLessEqual(set(parts), arguments)
            for instruction, rest in body:
                source = re.search(r"--from=(\S+)", rest)
                if instruction == "COPY" and source:
                    self.assertIn(source.group(1), seen, f"{name} copies from {source.group(1)}")
            seen.append(name)

    def test_the_image_runs_as_a_numbered_user_and_without_a_shell(self):
        body = dict(self.stages["image"][1])
        self.assertEqual(body["USER"], "65532:65532")
        self.assertEqual(json.loads(body["ENTRYPOINT"]), ["/opt/rapport/bin/service"])
        runtime = next(rest for name, rest in self.found if name == "ARG" and rest.startswith("RUNTIME_IMAGE="))
        self.assertRegex(runtime, r"distroless/cc-debian12:nonroot$")

    def test_base_images_are_pinned_and_the_compiler_is_new_enough(self):
        bases = {rest.split("=", 1)[0]: rest.split("=", 1)[1] for name, rest in self.found if name == "ARG" and "_IMAGE=" in rest}
        self.assertEqual(len(bases), 3)
        for image in bases.values():
            self.assertRegex(image, r":[^:]+$")
            self.assertNotIn(":latest", image)
        needed = re.search(r'rust-version = "(\d+)\.(\d+)"', (ROOT / "Cargo.toml").read_text())
        there = re.search(r"rust:(\d+)\.(\d+)", bases["RUST_IMAGE"])
        self.assertGreaterEqual(tuple(map(int, there.groups())), tuple(map(int, needed.groups())))

    def test_the_libraries_are_the_ones_that_development_uses(self):
        pins = (DEPLOY / "dev" / "requirements.txt").read_text()
        for package in ("torch==", "onnxruntime=="):
            self.assertRegex(pins, rf"(?m)^{package}")
            self.assertNotIn(package + "2", self.text, "a version belongs into requirements.txt alone")

    def test_the_trainers_image_for_cpus_holds_every_library_that_libtorch_asks_for(self):
        copied = [rest for name, rest in self.stages["libtorch-cpu"][1] if name == "RUN"][0]
        wanted = re.findall(r"(?:torch|nvidia)/\S+\.so\S*", copied)
        self.assertIn("torch/lib/libtorch_cpu.so", wanted)
        wheels = pathlib.Path(os.environ["LIBTORCH"]).parent
        # Hard links, since the loader looks beside the file itself.
        with tempfile.TemporaryDirectory(dir=os.environ["RAPPORT_CACHE"]) as folder:
            for path in wanted:
                target = pathlib.Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link((wheels / path).resolve(), target)
            found = run("env", "-u", "LD_LIBRARY_PATH", "ldd", f"{folder}/torch/lib/libtorch_cpu.so").stdout
        # What the runtime image itself has: glibc, libstdc++, libgcc.
        system = r"^\s*(linux-vdso|/lib64/ld-linux|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+)\.so)"
        rest = [line for line in found.splitlines() if not re.match(system, line)]
        self.assertTrue(rest)
        for line in rest:
            self.assertIn(folder, line, line)

    def test_the_context_holds_what_the_build_reads_and_nothing_private(self):
        rules = [l for l in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines() if l and l[0] != "#"]
        self.assertEqual(rules[0], "*")
        kept = [rule[1:] for rule in rules if rule.startswith("!")]
        for path in kept:
            self.assertTrue((ROOT / path).exists(), path)
        copied = {rest.split()[0] for name, rest in self.found if name == "COPY" and "--from" not in rest and rest.split()[0] != "."}
        self.assertTrue(copied)
        for path in copied:
            self.assertTrue(any(path == k or path.startswith(k + "/") for k in kept), path)
        members = re.search(r"members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.S).group(1)
        for member in re.findall(r'"([^"]+)"', members):
            self.assertTrue(any(fnmatch.fnmatch(member, k) or member.startswith(k + "/") for k in kept), member)

    def test_the_build_script_names_packages_that_exist(self):
        self.assertEqual(run("sh", "-n", DEPLOY / "docker" / "build.sh").returncode, 0)
        for service in SERVICES:
            manifest = (ROOT / "services" / service / "Cargo.toml").read_text()
            names = re.findall(r'(?m)^\[(?:package|\[bin\])\]\nname = "([^"]+)"', manifest)
            self.assertEqual(set(names), {f"rapport-{service}"}, "build.sh takes package and binary by this name")


class Compose(unittest.TestCase):
    def setUp(self):
        self.document = yaml.safe_load(COMPOSE.read_text())
        self.services = self.document["services"]

    def test_it_matches_the_compose_specification(self):
        result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_the_schema_notices_a_mistake(self):
        self.services["scorer"]["heathcheck"] = {}
        result = compose_problems(self.document)
        self.assertEqual(result.returncode, 1)
        self.assertIn("heathcheck", result.stdout)

    def test_kafka_redis_and_the_five_services_are_there_and_watched(self):
        self.assertEqual(sorted(self.services), sorted([*SERVICES, "kafka", "redis"]))
        for name, service in self.services.items():
            self.assertIn("test", service["healthcheck"], name)
            self.assertEqual(service["networks"], ["mesh"])
        self.assertEqual(self.services["kafka"]["image"], "apache/kafka:4.3.1")

    def test_what_a_service_waits_for_and_mounts_is_there(self):
        for name, service in self.services.items():
            for other, condition in service.get("depends_on", {}).items():
                self.assertIn(other, self.services)
                self.assertEqual(condition, {"condition": "service_healthy"})
            for volume in service.get("volumes", []):
                self.assertIn(volume.split(":")[0], self.document["volumes"], name)

    def test_each_service_is_built_from_the_dockerfile_under_its_own_name(self):
        for name in SERVICES:
            build = self.services[name]["build"]
            self.assertEqual(build["args"]["SERVICE"], name)
            self.assertEqual((DEPLOY / build["context"] / build["dockerfile"]).resolve(), DOCKERFILE)
            # The health check is busybox's, which only the debug variant has.
            self.assertIn("debug-nonroot", build["args"]["RUNTIME_IMAGE"])
            self.assertTrue(self.services[name]["read_only"])

    def test_health_checks_and_published_ports_are_those_that_the_service_opens(self):
        taken = []
        for name in SERVICES:
            service = self.services[name]
            opened = {v.rsplit(":", 1)[1] for k, v in service["environment"].items() if k.endswith("_ADDR")}
            admin = service["environment"]["RAPPORT_ADMIN_ADDR"].rsplit(":", 1)[1]
            self.assertIn(f":{admin}/readyz", service["healthcheck"]["test"][-1])
            for port in service["ports"]:
                self.assertTrue(port.startswith("127.0.0.1:"), "open to this machine only")
                self.assertIn(port.rsplit(":", 1)[1], opened)
                taken.append(port)
        self.assertEqual(len(taken), len(set(taken)))

    def test_every_variable_is_one_that_the_code_reads(self):
        known = set()
        for source in (ROOT / "services").rglob("*.rs"):
            known |= set(re.findall(r'"(RAPPORT_[A-Z0-9_]+)"', source.read_text()))
        for name in SERVICES:
            unknown = {k for k in self.services[name]["environment"] if k.startswith("RAPPORT_")} - known
            self.assertEqual(unknown, set(), name)

    def test_the_chart_sets_only_variables_that_the_code_reads(self):
        known = set()
        for source in (ROOT / "services").rglob("*.rs"):
            known |= set(re.findall(r'"(RAPPORT_[A-Z0-9_]+)"', source.read_text()))
        set_there = set(re.findall(r"RAPPORT_[A-Z0-9_]+", (ROOT / "helm/rapport/templates/_env.tpl").read_text()))
        self.assertEqual(set_there - known, set())


class Observability(unittest.TestCase):
    def metrics_in_code(self):
        """Names of metrics in the sources; a histogram also has _bucket, _sum and _count."""
        found = set()
        for source in (ROOT / "services").rglob("*.rs"):
            found |= set(re.findall(r'"(rapport_[a-z0-9_]+)"', source.read_text()))
        return found

    def panels(self, dashboard):
        for panel in dashboard["panels"]:
            yield panel
            yield from panel.get("panels", [])

    def test_the_dashboards_show_only_metrics_that_the_code_has(self):
        known = self.metrics_in_code()
        self.assertTrue(known)
        for path in (DEPLOY / "grafana").glob("*.json"):
            for panel in self.panels(json.loads(path.read_text())):
                for target in panel.get("targets", []):
                    for name in re.findall(r"rapport_[a-z0-9_]+", target["expr"]):
                        base = re.sub(r"_(bucket|sum|count)$", "", name)
                        self.assertTrue({name, base} & known, f'{path.name}, "{panel["title"]}": {name}')
                        # Others have no buckets (services/common/telemetry/src/admin.rs), and are summaries.
                        if name.endswith("_bucket"):
                            self.assertTrue(base.endswith("_seconds"), f'{path.name}, "{panel["title"]}": {name}')

    def test_a_dashboard_is_whole(self):
        paths = list((DEPLOY / "grafana").glob("*.json"))
        self.assertTrue(paths)
        for path in paths:
            dashboard = json.loads(path.read_text())
            self.assertTrue(dashboard["uid"] and dashboard["title"])
            ids = [panel["id"] for panel in self.panels(dashboard)]
            self.assertEqual(len(ids), len(set(ids)))
            places = set()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & places, f'{panel["title"]} overlaps')
                places |= cells
                if panel["type"] != "row":
                    self.assertTrue(panel["targets"] and panel.get("description"), panel["title"])

    def test_the_otlp_collectors_pipelines_name_parts_that_are_declared(self):
        config = yaml.safe_load((DEPLOY / "otel" / "collector.yaml").read_text())
        for name, pipeline in config["service"]["pipelines"].items():
            for part in ("receivers", "processors", "exporters"):
                for used in pipeline.get(part, []):
                    self.assertIn(used, config[part], f"{name} {part}")
        self.assertEqual(config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317")


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=2).result
    failed = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    print(f"deploy: {result.testsRun - failed} passed, {failed} failed", flush=True)
    sys.exit(not result.wasSuccessful() or result.testsRun == 0)
