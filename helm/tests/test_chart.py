"""What the chart promises, held against what it renders."""

import json
import pathlib
import sys
import tempfile
import unittest

import kubernetes_validate
import yaml

from variants import CHART, EXAMPLES, KUBERNETES, VARIANTS, documents, helm, template

COMPONENTS = ["cleaner", "collector", "feature-store", "scorer", "trainer"]
# Kinds of other projects, whose schemas Kubernetes does not ship. Anything else must be known.
CUSTOM = {"ServiceMonitor", "ScaledObject"}
MINIMAL = VARIANTS["minimal"]


def rendered(files, *arguments):
    result = template(files, *arguments)
    if result.returncode != 0:
        raise AssertionError(result.stderr)
    return documents(result.stdout)


def of_kind(docs, kind):
    return {d["metadata"]["name"].removeprefix("rapport-"): d for d in docs if d["kind"] == kind}


def pods(docs):
    """Every pod template, by kind and name: of Deployments, Jobs and CronJobs."""
    found = {}
    for d in docs:
        key = f'{d["kind"]}/{d["metadata"]["name"]}'
        if d["kind"] in ("Deployment", "Job"):
            found[key] = d["spec"]["template"]
        elif d["kind"] == "CronJob":
            found[key] = d["spec"]["jobTemplate"]["spec"]["template"]
    return found


def env(pod):
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in pod["spec"]["containers"][0]["env"]}


def problems(docs):
    """What the Kubernetes schemas say against the documents."""
    found = []
    for d in docs:
        if d["kind"] in CUSTOM:
            continue
        try:
            kubernetes_validate.validate(d, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f'{d["kind"]}/{d["metadata"]["name"]}: {error.message}')
    return found


def unsafe(pod):
    """What is wrong with a pod's security settings; empty when nothing is."""
    spec, wrong = pod["spec"], []
    outer = spec.get("securityContext", {})
    if outer.get("runAsNonRoot") is not True or not outer.get("runAsUser"):
        wrong.append("may run as root")
    if outer.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.append("no seccomp profile")
    if spec.get("automountServiceAccountToken") is not False:
        wrong.append("mounts a service account token")
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        wrong.append("shares the host's namespaces")
    for container in spec["containers"] + spec.get("initContainers", []):
        inner = container.get("securityContext", {})
        if inner.get("readOnlyRootFilesystem") is not True:
            wrong.append("writable root filesystem")
        if inner.get("allowPrivilegeEscalation") is not False or inner.get("privileged") is not False:
            wrong.append("may gain privileges")
        if inner.get("capabilities") != {"drop": ["ALL"]}:
            wrong.append("keeps capabilities")
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            wrong.append("no memory limit")
    return wrong


class Lint(unittest.TestCase):
    def test_the_chart_lints_strictly_in_every_variant(self):
        for name, files in VARIANTS.items():
            with self.subTest(name):
                values = [argument for file in files for argument in ("-f", file)]
                result = helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, *values)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class Documents(unittest.TestCase):
    def test_every_document_matches_the_kubernetes_schemas(self):
        for name, files in VARIANTS.items():
            with self.subTest(name):
                docs = rendered(files, "--set-string", "featureViews=views: []")
                self.assertGreater(len(docs), 20)
                self.assertEqual(problems(docs), [])

    def test_the_schema_check_notices_a_wrong_field(self):
        docs = rendered(MINIMAL)
        of_kind(docs, "Deployment")["scorer"]["spec"]["replica"] = 2
        self.assertEqual(len(problems(docs)), 1)

    def test_names_are_unique_and_selectors_find_their_pods(self):
        docs = rendered(VARIANTS["production"])
        names = [(d["kind"], d["metadata"]["name"]) for d in docs]
        self.assertEqual(len(names), len(set(names)))
        templates = [p["metadata"]["labels"] for p in pods(docs).values()]
        for service in of_kind(docs, "Service").values():
            selector = service["spec"]["selector"].items()
            hits = [labels for labels in templates if selector <= labels.items()]
            self.assertEqual(len(hits), 1, service["metadata"]["name"])

    def test_the_committed_examples_are_what_the_chart_renders(self):
        for name, files in VARIANTS.items():
            with self.subTest(name):
                committed = (EXAMPLES / f"{name}.yaml").read_text()
                self.assertEqual(committed, template(files).stdout, "run helm/test.sh --update and look at the change")

    def test_another_release_and_name_do_not_clash(self):
        docs = rendered(MINIMAL, "--set", "fullnameOverride=other")
        self.assertTrue(all(d["metadata"]["name"].startswith("other") for d in docs))


class Safety(unittest.TestCase):
    def test_every_pod_is_confined(self):
        for name, files in VARIANTS.items():
            for pod_name, pod in pods(rendered(files)).items():
                with self.subTest(f"{name} {pod_name}"):
                    self.assertEqual(unsafe(pod), [])

    def test_the_check_notices_an_unsafe_pod(self):
        pod = pods(rendered(MINIMAL))["Deployment/rapport-scorer"]
        pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
        pod["spec"]["automountServiceAccountToken"] = True
        self.assertEqual(len(unsafe(pod)), 2)

    def test_secrets_come_only_from_existing_secrets(self):
        docs = rendered(VARIANTS["production"])
        self.assertEqual(of_kind(docs, "Secret"), {})
        for pod_name, pod in pods(docs).items():
            for variable in ("RAPPORT_API_KEYS", "RAPPORT_HASH_KEY", "RAPPORT_REDIS_URL", "RAPPORT_KAFKA_SETTINGS"):
                value = env(pod).get(variable)
                if value is not None:
                    self.assertIn("secretKeyRef", value, f"{pod_name} {variable}")

    def test_each_component_gets_only_the_secrets_that_it_needs(self):
        docs = rendered(MINIMAL)
        holders = {
            variable: sorted(n for n, p in of_kind(docs, "Deployment").items() if variable in env(p["spec"]["template"]))
            for variable in ("RAPPORT_API_KEYS", "RAPPORT_HASH_KEY")
        }
        self.assertEqual(holders["RAPPORT_API_KEYS"], ["collector"])
        self.assertNotIn("RAPPORT_HASH_KEY", env(pods(docs)["Job/rapport-topics"]))
        self.assertEqual(holders["RAPPORT_HASH_KEY"], ["cleaner", "feature-store", "scorer"])

    def test_the_network_is_closed_and_opened_by_name(self):
        docs = rendered(MINIMAL)
        policies = of_kind(docs, "NetworkPolicy")
        deny = policies.pop("deny-all")
        self.assertEqual(deny["spec"]["policyTypes"], ["Ingress", "Egress"])
        self.assertNotIn("ingress", deny["spec"])
        self.assertNotIn("egress", deny["spec"])
        self.assertEqual(sorted(policies), sorted(COMPONENTS + ["topics"]))
        for name, policy in policies.items():
            ports = {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}
            self.assertEqual(6379 in ports, name in ("cleaner", "feature-store", "scorer"), name)
            self.assertNotIn(4317, ports)
        traced = of_kind(rendered(MINIMAL, "--set", "telemetry.otlpEndpoint=http://otel:4317"), "NetworkPolicy")
        self.assertIn({"port": 4317, "protocol": "TCP"}, [p for r in traced["scorer"]["spec"]["egress"] for p in r["ports"]])


class Rollout(unittest.TestCase):
    def setUp(self):
        self.docs = rendered(MINIMAL)
        self.deployments = of_kind(self.docs, "Deployment")

    def container(self, name):
        return self.deployments[name]["spec"]["template"]["spec"]["containers"][0]

    def test_there_is_a_deployment_for_each_of_the_five_services(self):
        self.assertEqual(sorted(self.deployments), COMPONENTS)

    def test_readiness_and_liveness_ask_for_different_health_names(self):
        for name in COMPONENTS:
            with self.subTest(name):
                container = self.container(name)
                live, ready = container["livenessProbe"], container["readinessProbe"]
                if name in ("cleaner", "trainer"):
                    self.assertEqual((live["httpGet"]["path"], ready["httpGet"]["path"]), ("/livez", "/readyz"))
                    self.assertEqual(live["httpGet"]["port"], "admin")
                else:
                    self.assertEqual((live["grpc"]["service"], ready["grpc"]["service"]), ("liveness", "readiness"))
                    listens = env({"spec": {"containers": [container]}})["RAPPORT_GRPC_ADDR"]
                    self.assertEqual(listens, f'0.0.0.0:{live["grpc"]["port"]}')

    def test_the_scorer_has_time_to_load_its_model(self):
        startup = self.container("scorer")["startupProbe"]
        self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 300)
        self.assertEqual(startup["grpc"]["service"], "liveness")

    def test_a_rolling_update_never_takes_capacity_away(self):
        for name in ("collector", "cleaner", "feature-store", "scorer"):
            strategy = self.deployments[name]["spec"]["strategy"]
            self.assertEqual(strategy["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1}, name)

    def test_the_trainer_is_alone(self):
        spec = self.deployments["trainer"]["spec"]
        self.assertEqual((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}))

    def test_the_grace_period_covers_pre_stop_drain_and_the_last_flush(self):
        docs = rendered(MINIMAL, "--set", "default.drainSeconds=12", "--set", "components.scorer.preStopSeconds=20")
        for name, deployment in of_kind(docs, "Deployment").items():
            spec = deployment["spec"]["template"]["spec"]
            sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            drain = int(env(deployment["spec"]["template"])["RAPPORT_DRAIN_BUDGET"].removesuffix("s"))
            self.assertEqual((sleep, drain), (20 if name == "scorer" else 5, 12))
            # The services flush traces for up to 3 s after the drain.
            self.assertGreater(spec["terminationGracePeriodSeconds"], sleep + drain + 3, name)

    def test_every_service_has_a_disruption_budget_and_spreads(self):
        self.assertEqual(sorted(of_kind(self.docs, "PodDisruptionBudget")), COMPONENTS)
        for name, deployment in self.deployments.items():
            spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
            self.assertEqual(len(spread), 2)
            for constraint in spread:
                self.assertEqual(constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], name)

    def test_shared_folders_are_written_by_their_owner_and_read_by_the_others(self):
        mounts = {
            (name, mount["name"]): mount.get("readOnly", False)
            for name in COMPONENTS
            for mount in self.container(name)["volumeMounts"]
            if mount["name"] in ("offline", "registry")
        }
        self.assertEqual(
            mounts,
            {
                ("feature-store", "offline"): False,
                ("trainer", "offline"): True,
                ("trainer", "registry"): False,
                ("scorer", "registry"): True,
            },
        )

    def test_volumes_outlive_the_release_and_can_be_brought_along(self):
        claims = of_kind(self.docs, "PersistentVolumeClaim")
        self.assertEqual(sorted(claims), ["offline", "registry"])
        for claim in claims.values():
            self.assertEqual(claim["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        docs = rendered(MINIMAL, "--set", "storage.offline.existingClaim=mine")
        self.assertEqual(sorted(of_kind(docs, "PersistentVolumeClaim")), ["registry"])
        volumes = of_kind(docs, "Deployment")["trainer"]["spec"]["template"]["spec"]["volumes"]
        self.assertIn({"name": "offline", "persistentVolumeClaim": {"claimName": "mine"}}, volumes)

    def test_a_log_in_a_bucket_needs_no_volume_and_names_its_keys_by_a_secret(self):
        bucket = ("offline.url=s3://logs/shop", "offline.s3.endpoint=https://minio:9000", "offline.s3.existingSecret=s3-keys")
        docs = rendered(MINIMAL, *[a for value in bucket for a in ("--set", value)], "--set", "training.cronJob.enabled=true")
        self.assertEqual(sorted(of_kind(docs, "PersistentVolumeClaim")), ["registry"])
        reads = {"Deployment/rapport-feature-store", "Deployment/rapport-trainer", "CronJob/rapport-training"}
        self.assertLess(reads, set(pods(docs)))
        for name, pod in pods(docs).items():
            variables = env(pod)
            self.assertNotIn("offline", [volume["name"] for volume in pod["spec"].get("volumes", [])])
            if name not in reads:
                self.assertNotIn("RAPPORT_OFFLINE_URL", variables)
                continue
            self.assertEqual(variables["RAPPORT_OFFLINE_URL"], "s3://logs/shop")
            self.assertEqual(variables["AWS_ENDPOINT_URL"], "https://minio:9000")
            self.assertNotIn("AWS_ALLOW_HTTP", variables)
            for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                self.assertEqual(variables[key], {"secretKeyRef": {"name": "s3-keys", "key": key}})
        for name, policy in of_kind(docs, "NetworkPolicy").items():
            ports = [port["port"] for rule in policy["spec"].get("egress", []) for port in rule["ports"]]
            self.assertEqual(443 in ports, name in ("feature-store", "trainer", "training"), name)

    def test_an_image_is_named_by_tag_or_by_digest(self):
        digest = "sha256:" + "a" * 64
        docs = rendered(
            MINIMAL, "--set", "image.registry=registry.example.com/team", "--set", "image.tag=1.2.3",
            "--set", f"components.scorer.image.digest={digest}", "--set", "components.trainer.image.tag=gpu-7",
        )
        images = {name: d["spec"]["template"]["spec"]["containers"][0]["image"] for name, d in of_kind(docs, "Deployment").items()}
        self.assertEqual(images["scorer"], f"registry.example.com/team/rapport/scorer@{digest}")
        self.assertEqual(images["trainer"], "registry.example.com/team/rapport/trainer:gpu-7")
        self.assertEqual(images["cleaner"], "registry.example.com/team/rapport/cleaner:1.2.3")


class Scaling(unittest.TestCase):
    def test_nothing_scales_or_needs_an_operator_by_default(self):
        kinds = {d["kind"] for d in rendered(MINIMAL)}
        self.assertFalse(kinds & {"HorizontalPodAutoscaler", "ScaledObject", "ServiceMonitor", "CronJob"}, kinds)

    def test_a_scaled_deployment_has_one_scaler_and_no_replicas_of_its_own(self):
        docs = rendered(VARIANTS["production"])
        targets = [d["spec"]["scaleTargetRef"]["name"] for d in docs if d["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
        self.assertEqual(sorted(targets), ["rapport-cleaner", "rapport-collector", "rapport-feature-store", "rapport-scorer"])
        for name, deployment in of_kind(docs, "Deployment").items():
            self.assertEqual("replicas" in deployment["spec"], name == "trainer", name)

    def test_keda_watches_the_group_and_topic_that_the_service_reads(self):
        docs = rendered(VARIANTS["production"], "--set", "kafka.topicPrefix=shop.", "--set", "components.cleaner.groupId=g1")
        for name, topic in (("cleaner", "shop.events.raw.v1"), ("feature-store", "shop.events.clean.v1")):
            trigger = of_kind(docs, "ScaledObject")[name]["spec"]["triggers"][0]["metadata"]
            variables = env(of_kind(docs, "Deployment")[name]["spec"]["template"])
            self.assertEqual(trigger["topic"], topic)
            self.assertEqual(trigger["consumerGroup"], variables["RAPPORT_GROUP_ID"])
            self.assertEqual(trigger["bootstrapServers"], variables["RAPPORT_KAFKA_BROKERS"])

    def test_a_gpu_is_asked_for_only_where_it_is_switched_on(self):
        def trainer(files):
            return of_kind(rendered(files), "Deployment")["trainer"]["spec"]["template"]["spec"]

        plain, gpu = trainer(MINIMAL), trainer(VARIANTS["gpu"])
        self.assertNotIn("nvidia.com/gpu", json.dumps(plain))
        self.assertEqual(gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], 1)
        self.assertEqual(gpu["runtimeClassName"], "nvidia")
        self.assertTrue(gpu["tolerations"] and gpu["nodeSelector"])
        self.assertIn("trainer-cuda", gpu["containers"][0]["image"])


class Jobs(unittest.TestCase):
    def test_topics_are_made_by_a_hook_or_not_at_all(self):
        job = of_kind(rendered(MINIMAL), "Job")["topics"]
        self.assertEqual(job["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade")
        pod = job["spec"]["template"]
        self.assertEqual(pod["spec"]["containers"][0]["args"], ["topics", "ensure"])
        # Before the first install the release's own service account is not there yet.
        self.assertNotIn("serviceAccountName", pod["spec"])
        variables = env(pod)
        self.assertEqual((variables["RAPPORT_KAFKA_PARTITIONS"], variables["RAPPORT_KAFKA_REPLICATION"]), ("12", "3"))
        self.assertEqual(of_kind(rendered(MINIMAL, "--set", "topics.mode=none"), "Job"), {})

    def test_training_on_a_schedule_is_one_run_at_a_time(self):
        cron = of_kind(rendered(VARIANTS["production"]), "CronJob")["training"]["spec"]
        self.assertEqual(cron["concurrencyPolicy"], "Forbid")
        pod = cron["jobTemplate"]["spec"]["template"]["spec"]
        self.assertEqual(pod["containers"][0]["args"], ["train"])
        self.assertEqual({v["name"] for v in pod["volumes"]}, {"tmp", "offline", "registry"})
        self.assertNotIn("livenessProbe", pod["containers"][0])

    def test_the_dashboard_in_the_chart_is_the_one_in_deploy(self):
        deployed = sorted((CHART.parent.parent / "deploy" / "grafana").glob("*.json"))
        self.assertTrue(deployed)
        config = of_kind(rendered(MINIMAL, "--set", "dashboards.enabled=true"), "ConfigMap")["dashboards"]
        self.assertEqual(sorted(config["data"]), [path.name for path in deployed])
        for path in deployed:
            self.assertEqual(json.loads(config["data"][path.name]), json.loads(path.read_text()))

    def test_own_feature_views_reach_every_service_that_folds(self):
        docs = rendered(MINIMAL, "--set-string", "featureViews=views: []")
        self.assertEqual(of_kind(docs, "ConfigMap")["views"]["data"]["views.yaml"].strip(), "views: []")
        holders = sorted(n for n, d in of_kind(docs, "Deployment").items() if "RAPPORT_VIEWS" in env(d["spec"]["template"]))
        self.assertEqual(holders, ["feature-store", "scorer"])


class Ingestion(unittest.TestCase):
    """Keys, rules, TLS and the spool reach the pods that use them, and no other."""

    SET = (
        "--set", "apiKeys.fileSecret=rapport-keys,components.collector.tls.secret=collector-tls,components.collector.tls.clientCa=true",
        "--set", "components.collector.spool.enabled=true,components.collector.spool.size=10Gi",
        "--set", "kafka.securityProtocol=sasl_ssl,kafka.tlsSecret=kafka-tls,kafka.sasl.username=rapport,kafka.sasl.existingSecret=kafka-user",
        "--set-string", "policies.acme=version: 1",
        "--set-string", "placements.acme=placements: {}",
    )

    def test_every_document_still_matches_the_schemas(self):
        self.assertEqual(problems(rendered(MINIMAL, *self.SET)), [])

    def test_the_collector_finds_its_files_and_its_disk(self):
        pod = pods(rendered(MINIMAL, *self.SET))["Deployment/rapport-collector"]
        variables = env(pod)
        self.assertEqual(variables["RAPPORT_API_KEYS_FILE"], "/etc/rapport/keys/keys.yaml")
        self.assertEqual(variables["RAPPORT_SPOOL_BYTES"], str(10 * 2**30 * 9 // 10))
        mounted = {m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
        for name in ("RAPPORT_API_KEYS_FILE", "RAPPORT_POLICIES", "RAPPORT_TLS_CERT", "RAPPORT_TLS_CLIENT_CA", "RAPPORT_SPOOL_DIR", "RAPPORT_KAFKA_CA"):
            self.assertTrue(any(variables[name].startswith(path) for path in mounted), name)
        volumes = {v["name"] for v in pod["spec"]["volumes"]}
        self.assertEqual({m["name"] for m in pod["spec"]["containers"][0]["volumeMounts"]}, volumes)
        self.assertIn("httpGet", pod["spec"]["containers"][0]["readinessProbe"], "a gRPC probe speaks no TLS")

    def test_rules_go_to_the_collector_and_the_cleaner_only(self):
        docs = rendered(MINIMAL, *self.SET)
        self.assertEqual(of_kind(docs, "ConfigMap")["policies"]["data"], {"acme.yaml": "version: 1\n"})
        having = {name for name, pod in pods(docs).items() if "RAPPORT_POLICIES" in env(pod)}
        self.assertEqual(having, {"Deployment/rapport-collector", "Deployment/rapport-cleaner"})

    def test_placements_go_to_the_scorer_and_to_who_judges_experiments(self):
        docs = rendered(MINIMAL, *self.SET)
        self.assertEqual(of_kind(docs, "ConfigMap")["placements"]["data"], {"acme.yaml": "placements: {}\n"})
        having = {name for name, pod in pods(docs).items() if "RAPPORT_PLACEMENTS" in env(pod)}
        self.assertEqual({name.split("/")[1] for name in having}, {"rapport-scorer", "rapport-feature-store"})
        mounts = pods(docs)["Deployment/rapport-scorer"]["spec"]["containers"][0]["volumeMounts"]
        self.assertIn("/etc/rapport/placements", {mount["mountPath"] for mount in mounts})

    def test_the_scorers_other_doors_are_closed_until_they_are_opened(self):
        doors = ("RAPPORT_GORSE_ADDR", "RAPPORT_RAW_MODELS", "RAPPORT_RAW_MODELS_ADDR", "RAPPORT_API_KEYS_FILE")
        closed = env(pods(rendered(MINIMAL, *self.SET))["Deployment/rapport-scorer"])
        self.assertEqual([name for name in doors if name in closed], [])
        more = "components.scorer.gorse.enabled=true,components.scorer.rawModels.enabled=true"
        docs = rendered(MINIMAL, *self.SET, "--set", more)
        self.assertEqual(problems(docs), [])
        pod = pods(docs)["Deployment/rapport-scorer"]
        opened = env(pod)
        self.assertEqual([opened[name] for name in doors], ["0.0.0.0:7502", "true", "0.0.0.0:7504", "/etc/rapport/keys/keys.yaml"])
        self.assertIn("/etc/rapport/keys", {m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]})
        ports = {p["name"]: p["port"] for p in of_kind(docs, "Service")["scorer"]["spec"]["ports"]}
        self.assertEqual((ports["gorse"], ports["raw"]), (7502, 7504))
        policy = of_kind(docs, "NetworkPolicy")["scorer"]["spec"]["ingress"][0]["ports"]
        self.assertEqual([p["port"] for p in policy], ["grpc", "gorse", "raw"])

    def test_everybody_speaks_to_kafka_with_the_password_from_its_secret(self):
        for name, pod in pods(rendered(MINIMAL, *self.SET)).items():
            with self.subTest(name):
                secret = env(pod)["RAPPORT_KAFKA_SASL_PASSWORD"]["secretKeyRef"]
                self.assertEqual(secret, {"name": "kafka-user", "key": "password"})


class Refusals(unittest.TestCase):
    """Values that are wrong, and a part of the message that says so."""

    def refused(self, message, *arguments, files=MINIMAL):
        result = template(files, *arguments)
        self.assertNotEqual(result.returncode, 0, "was accepted")
        self.assertIn(message, result.stderr)

    def test_what_must_be_set_is_asked_for(self):
        required = {
            "kafka.brokers": "kafka.brokers is required",
            "redis.url": "redis.url is required",
            "hashKey.existingSecret": "hashKey.existingSecret is required",
            "apiKeys.existingSecret": "apiKeys.existingSecret or apiKeys.fileSecret is required",
        }
        for value, message in required.items():
            with self.subTest(value):
                self.refused(message, "--set", f"{value}=")
        self.refused("kafka.brokers is required", files=[])

    def test_half_of_a_security_setting_is_refused(self):
        self.refused("kafka.sasl.username and", "--set", "kafka.securityProtocol=sasl_ssl")
        self.refused("needs kafka.tlsSecret", "--set", "kafka.mutualTls=true")
        self.refused("needs components.collector.tls.secret", "--set", "components.collector.tls.clientCa=true")

    def test_unknown_names_are_refused(self):
        for value in ("kafka.broker=x:1", "components.scorrer.enabled=true", "default.replica=1", "components.scorer.securityContext.runAsUser=0"):
            with self.subTest(value):
                self.refused("additional properties", "--set", value)

    def test_a_redis_cluster_is_told_from_one_node(self):
        cluster = ("--set", r"redis.url=redis-cluster://redis-0:6379\,redis-1:6379", "--set", "redis.replicas=1")
        text = template(MINIMAL, *cluster).stdout
        self.assertEqual(text.count('value: "redis-cluster://redis-0:6379,redis-1:6379"'), 3)
        self.assertEqual(text.count('{name: RAPPORT_REDIS_REPLICAS, value: "1"}'), 3)
        for wrong in (r"redis://a:1\,b:2", "redis-cluster://", "redis-cluster://a:1/2", "redis-cluster://:secret@a:1"):
            with self.subTest(wrong):
                self.refused("/redis/url", "--set", f"redis.url={wrong}")

    def test_passwords_have_no_place_in_values(self):
        self.refused("/redis/url", "--set", "redis.url=redis://:secret@redis:6379")
        variable = "env.RAPPORT_HASH_KEY"
        for owner in ("default", "components.scorer"):
            self.refused("set hashKey.existingSecret instead", "--set-string", f"{owner}.{variable}=0123456789abcdef")
        self.refused("kafka.settings.sasl.password holds a secret", "--set-string", r"kafka.settings.sasl\.password=secret")

    def test_a_log_that_several_nodes_cannot_share_is_refused(self):
        for name, advice in (("offline", "set offline.url to a bucket"), ("registry", "[ReadWriteMany]")):
            with self.subTest(name):
                once = ("--set", "storage.%s.accessModes={ReadWriteOnce}" % name)
                self.refused(advice, *once)
                rendered(MINIMAL, *once, "--set", "storage.oneNode=true")
        bucket = ("--set", "offline.url=s3://logs/shop")
        rendered(MINIMAL, *bucket, "--set", "storage.offline.accessModes={ReadWriteOnce}")
        self.refused("allowHttp=true", *bucket, "--set", "offline.s3.endpoint=http://minio:9000")
        rendered(MINIMAL, *bucket, "--set", "offline.s3.endpoint=http://minio:9000", "--set", "offline.s3.allowHttp=true")
        self.refused("the log would lie on a volume", "--set", "offline.s3.existingSecret=s3-keys")
        self.refused("/offline/url", "--set", "offline.url=s3://key:secret@logs/shop")
        self.refused("set offline.url instead", "--set", "components.trainer.env.RAPPORT_OFFLINE_URL=s3://logs")

    def test_values_that_contradict_each_other_are_refused(self):
        self.refused("not both", "--set", "redis.existingSecret=s")
        self.refused("not both", "--set", "kafka.existingSecret=s", "--set-string", r"kafka.settings.client\.rack=a")
        self.refused("more than topics.partitions", "--set", "components.cleaner.autoscaling.keda.enabled=true,components.cleaner.autoscaling.keda.maxReplicas=13")
        self.refused("more than maxReplicas", "--set", "components.scorer.autoscaling.hpa.enabled=true,components.scorer.autoscaling.hpa.minReplicas=11")

    def test_no_deployment_can_have_two_scalers(self):
        self.refused("additional properties", "--set", "components.cleaner.autoscaling.hpa.enabled=true")
        self.refused("additional properties", "--set", "components.scorer.autoscaling.keda.enabled=true")
        # Without the schema the templates still refuse.
        self.refused(
            "never both", "--skip-schema-validation",
            "--set", "components.cleaner.autoscaling.hpa.enabled=true,components.cleaner.autoscaling.keda.enabled=true",
        )

    def test_figures_out_of_range_are_refused(self):
        for value, path in {
            "default.drainSeconds=60": "/default/drainSeconds",
            "components.trainer.replicas=2": "/components/trainer/replicas",
            "telemetry.traceSample=2": "/telemetry/traceSample",
            "topics.mode=strimzi": "/topics/mode",
            "kafka.brokers=kafka": "/kafka/brokers",
            "components.scorer.image.digest=sha256:abc": "/components/scorer/image/digest",
        }.items():
            with self.subTest(value):
                self.refused(path, "--set", value)


class Values(unittest.TestCase):
    def test_every_default_is_described_by_the_schema_and_the_other_way_round(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())
        self.assertEqual(sorted(schema["properties"]), sorted([*defaults, "global"]))
        for name, component in defaults["components"].items():
            described = schema["properties"]["components"]["properties"][name]["properties"]
            self.assertLessEqual(set(component), set(described), name)
        self.assertEqual(sorted(defaults["default"]), sorted(set(schema["properties"]["default"]["properties"])))

    def test_a_package_of_the_chart_renders_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            made = helm("package", CHART, "-d", folder)
            self.assertEqual(made.returncode, 0, made.stderr)
            package = next(pathlib.Path(folder).glob("*.tgz"))
            out = helm("template", "rapport", package, "-n", "rapport", "--kube-version", KUBERNETES, "-f", MINIMAL[0], "--set", "dashboards.enabled=true")
            self.assertEqual(documents(out.stdout), rendered(MINIMAL, "--set", "dashboards.enabled=true"))


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=2).result
    failed = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    print(f"chart: {result.testsRun - failed} passed, {failed} failed", flush=True)
    sys.exit(not result.wasSuccessful() or result.testsRun == 0)
