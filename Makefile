# Everything a newcomer needs: `make demo` and `make test` set themselves up.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && exit; \
	done; command -v python3)
BIN := .venv/bin
SET_UP = test -n "$(PYTHON)" || { echo "timbred: there is no Python here; install Python 3.11, 3.12 or 3.13" >&2; exit 1; }; \
	$(PYTHON) set_up.py

# a file's tests share a worker; the order of the files is that of tests/conftest.py
WORKERS := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-bare test-cluster coverage check wheel docs bench pocket-data pocket-train pocket-eval clean

demo: .venv/.installed
	@$(BIN)/timbred demo --set takes.folder=takes

# the tests start Python hundreds of times, so that bytecode which isn't kept is compiled hundreds of times
test test-bare coverage: export PYTHONDONTWRITEBYTECODE :=
# the tests run side by side: threads that spin for others take their time, as in the engine
test test-bare coverage: export GOMP_SPINCOUNT := 1000

test: .venv/.installed-for-tests
	@rm -f .coverage.json
	$(BIN)/python -m tests.checks $(BIN)/python -m slipcover --dont-wrap-pytest -m pytest $(WORKERS); status=$$?; \
		$(BIN)/python -m tests.branch_coverage .coverage.json; exit $$status

# as on a machine without PortAudio, JACK, Pd, SuperCollider, Node and Chromium; what needs them is skipped
test-bare: .venv/.installed-for-tests
	$(BIN)/python -m tests.bare_machine $(BIN)/pytest $(WORKERS)

# the tests with a Ray cluster of several nodes on this machine; the others don't need Ray
test-cluster: .venv/.installed-for-cluster
	TIMBRED_TEST_CLUSTER=1 $(BIN)/pytest -n 0 tests/cluster/test_ray_nodes.py

# branch coverage of the package, child processes included; `test` prints that of the tests' own processes
coverage: .venv/.installed-for-tests
	$(BIN)/pytest $(WORKERS) --cov --cov-report=term

check: .venv/.installed-for-tests
	@$(BIN)/python -m tests.checks

# generated files, then the site, into `site`; a warning fails it
docs: .venv/.installed-for-docs
	$(BIN)/python -m timbred.protocol.describe > .generated && mv .generated docs/protocol.md
	$(BIN)/python docs/hooks/settings.py > .generated && mv .generated docs/settings.md
	$(BIN)/python -m max_patches.generate
	$(BIN)/python bridges/python/generate_requests.py > .generated && mv .generated daemon/timbred/client/requests.py
	$(BIN)/python bridges/touchdesigner/write_vocabulary.py > .generated && mv .generated bridges/touchdesigner/timbred_vocabulary.py
	$(BIN)/python -m bridges.puredata.source
	$(BIN)/python -m bridges.supercollider.source
	$(BIN)/python -m tests.bridges.touchdesigner_picture > .generated && mv .generated docs/pictures/touchdesigner.svg
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: .venv/.installed-for-tests
	$(BIN)/python -m benchmarks

pocket-data: .venv/.installed-for-tests
	$(BIN)/python -m training.pocket.data
	$(BIN)/python -m training.pocket.features

pocket-train: .venv/.installed-for-tests
	$(BIN)/python -m training.pocket.train
	$(BIN)/python -m training.pocket.logbook

pocket-eval: .venv/.installed-for-tests
	$(BIN)/python -m training.pocket.train --stage classifier
	$(BIN)/python -m training.pocket.evaluate
	$(BIN)/python -m training.pocket.sheet docs/pocket-contact-sheet.png
	$(BIN)/python -m training.pocket.listening
	$(BIN)/python -m training.pocket.report

.venv/.installed: pyproject.toml constraints.txt
	@$(SET_UP)
	@touch $@

.venv/.installed-for-tests: pyproject.toml constraints.txt
	@$(SET_UP) test training
	@touch $@ .venv/.installed

.venv/.installed-for-cluster: pyproject.toml constraints.txt
	@$(SET_UP) test training cluster
	@touch $@ .venv/.installed .venv/.installed-for-tests

.venv/.installed-for-docs: pyproject.toml constraints.txt
	@$(SET_UP) test docs
	@touch $@ .venv/.installed

# what `pipx install` and `uv tool install` take
wheel: .venv/.installed
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf .venv build dist site .coverage* .pytest_cache .ruff_cache .hypothesis
