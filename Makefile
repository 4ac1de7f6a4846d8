# Rapport's main jobs. `make` alone explains them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo up down restart status logs test check check-deps bench bench-train soak chaos load replay-quality clean-run

# Every recipe finds the cache, libtorch and ONNX Runtime through it.
env := . deploy/dev/env.sh
# One build of the dependencies for everything; incremental builds would only fill the disk.
export CARGO_INCREMENTAL := 0

help: ## show this
	@printf 'Rapport: customer events in, live recommendations out.\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@printf '\nBegin with `make demo`. It needs Rust, a JDK 17+, Maven and Python 3.10+, and says what is missing.\n'

setup: ## fetch what a developer needs: Redis, Kafka, libtorch, ONNX Runtime, MovieLens (idempotent)
	@deploy/dev/setup.sh

build: setup ## build everything (release)
	@$(env) && cargo build --release --workspace

demo: ## set up, start, import 100,000 ratings, learn, serve; leaves it running
	@deploy/dev/demo.sh

up: build ## start Redis, Kafka and the five services
	@deploy/dev/stack.sh up

down: ## stop everything
	@deploy/dev/stack.sh down

restart: build ## stop and start everything, with what was built
	@deploy/dev/stack.sh restart

status: ## what runs, where it listens, whether it is ready
	@deploy/dev/stack.sh status

logs: ## follow the logs (one service: deploy/dev/stack.sh logs scorer)
	@deploy/dev/stack.sh logs

test: ## unit, property and integration tests on real servers, then the chart's and the images' tests
	@deploy/dev/setup.sh --tests
	@$(env) && cargo build --release --workspace --bins # the integration tests start these
	@$(env) && cargo test --release --workspace
	@$(env) && for suite in helm/test.sh deploy/test.sh; do \
	  if [ -x "$$suite" ]; then printf '\n== %s\n' "$$suite"; "./$$suite"; fi; done

check: ## format, lints, shell syntax; cargo deny and machete where they are installed
	@deploy/dev/setup.sh
	@cargo fmt --all --check
	@$(env) && cargo clippy --release --workspace --all-targets -- -D warnings
	@for script in $$(git ls-files '*.sh' .ci/run); do bash -n "$$script"; done
	@if command -v shellcheck >/dev/null; then shellcheck -x $$(git ls-files '*.sh' .ci/run); fi
	@$(env) && if command -v cargo-deny >/dev/null; then cargo deny check; \
	  else echo 'check: cargo-deny is not installed, skipped (make check-deps installs it)'; fi
	@$(env) && if command -v cargo-machete >/dev/null; then cargo machete; \
	  else echo 'check: cargo-machete is not installed, skipped (make check-deps installs it)'; fi

check-deps: ## install cargo-deny and cargo-machete into the cache (compiles for some minutes), then run them
	@$(env) && for tool in cargo-deny cargo-machete; do \
	  command -v $$tool >/dev/null || CARGO_TARGET_DIR="$$RAPPORT_CACHE/tools-target" cargo install --locked --root "$$RAPPORT_CACHE" $$tool; done
	@$(env) && cargo deny check && cargo machete

bench: ## benchmarks, each against a ceiling taken in the same run (BENCH="--quick --only ingest")
	@deploy/dev/setup.sh
	@$(env) && cargo build --release --workspace --bins && "$$CARGO_TARGET_DIR/release/bench" $(BENCH)

bench-train: ## how fast networks learn here and in PyTorch, in turn; 8 minutes (BENCH_TRAIN="--threads 2 --seconds 30")
	@deploy/dev/setup.sh --pytorch
	@$(env) && cargo build --release -p rapport-trainer --bin bench-train \
	  && "$$CARGO_TARGET_DIR/release/bench-train" \
	  --python "$$RAPPORT_CACHE/pytorch-venv/bin/python" $(BENCH_TRAIN)

soak: ## ten minutes of full load with Kafka stalled for two of them: does memory stay flat? (SOAK="--seconds 60 --stalled 12")
	@deploy/dev/setup.sh
	@$(env) && cargo build --release --workspace --bins && "$$CARGO_TARGET_DIR/release/bench" soak $(SOAK)

chaos: ## a million events while brokers, collectors and cleaners are killed; then all are counted (CHAOS="--minutes 5 --events 300000 --seed 7")
	@deploy/dev/setup.sh
	@$(env) && cargo build --release -p rapport-collector -p rapport-cleaner -p rapport-integration-tests --bins \
	  && "$$CARGO_TARGET_DIR/release/chaos" $(CHAOS)

load: ## recommendations at 70 % of the most for ten minutes, while instances are killed and the model is swapped (LOAD="--minutes 3 --seed 7")
	@deploy/dev/setup.sh
	@$(env) && cargo build --release --workspace --bins && "$$CARGO_TARGET_DIR/release/load" $(LOAD)

replay-quality: ## MovieLens 100K replayed through the running system: are next items in the lists, as often as offline? (REPLAY="FILE --customers 1000")
	@deploy/dev/setup.sh
	@$(env) && cargo build --release --workspace --bins \
	  && "$$CARGO_TARGET_DIR/release/bench" quality $(if $(REPLAY),$(REPLAY),"$$RAPPORT_DATA/ml-100k/ml-100k.inter")

clean-run: ## stop everything and forget its data (topics, features, models); caches stay
	@if [ -f deploy/dev/stack.sh ]; then deploy/dev/stack.sh down; fi
	@$(env) && case "$$RAPPORT_RUN_DIR" in */.rapport) rm -rf "$$RAPPORT_RUN_DIR" ;; \
	  *) echo "not removed: $$RAPPORT_RUN_DIR does not end in /.rapport" ;; esac
