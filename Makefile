# The same pins (requirements.txt) serve everything here. `demo` needs the package alone; `test` and `check` add the
# tools and the packages that tests compare with. Stamps in .venv keep an installation from being repeated.
PYTHON ?= python3
BIN := .venv/bin
CORPUS := $(HOME)/.cache/unlabeled/corpus
STUDIES := runs/studies

.PHONY: demo test check bench docs clean

demo: .venv/.package
	$(BIN)/unlabeled fit fashion --budget 60s

test: .venv/.tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: .venv/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

# Hours, on an otherwise idle machine; every script appends what it found to benchmarks/results/.
bench: .venv/.tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	$(BIN)/python benchmarks/clean_clone.py
	$(BIN)/python benchmarks/footprint.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/kill_and_resume.py
	$(BIN)/python benchmarks/hostile_folder.py
	$(BIN)/python benchmarks/failures.py
	for data in fashion-mnist shakespeare kernel-docs festvox-ru; do $(BIN)/unlabeled data get $$data || exit 1; done
	$(BIN)/python benchmarks/curate_codex.py
	$(BIN)/python benchmarks/curate_corpus.py $(CORPUS)
	$(BIN)/python benchmarks/curate_datatrove.py $(CORPUS) --seconds 100000
	for script in exact speed memory; do $(BIN)/python benchmarks/curate_$$script.py $(CORPUS) || exit 1; done
	$(BIN)/python benchmarks/curate_value.py $(CORPUS) --out $(CORPUS)-value
	$(BIN)/python benchmarks/curate_engines.py $(CORPUS)/documents/kernel-rst
	$(BIN)/python benchmarks/curate_duplicates.py 5
	$(BIN)/python benchmarks/scale_fit.py
	$(BIN)/python benchmarks/scale_study.py gpt2 kernel-docs --budget 7.1e14flops --budgets 5 --ratio 3.1 --sizes 7 --spacing 1.9 --out $(STUDIES)/gpt2
	$(BIN)/python benchmarks/scale_study.py vae fashion-mnist --budget 9m --budgets 5 --sizes 6 --out $(STUDIES)/vae
	$(BIN)/python benchmarks/scale_encoder.py simclr fashion-mnist --budget 10m --out $(STUDIES)/simclr
	$(BIN)/python benchmarks/fit_forecast.py --budget 8m
	for run in $$($(BIN)/python benchmarks/learn.py --list); do $(BIN)/python benchmarks/learn.py $$run || exit 1; done

docs: .venv/.package
	$(BIN)/python scripts/make_docs.py

clean:
	rm -rf .venv

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/.package: .venv/.made requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt --no-build-isolation -e .
	touch $@

.venv/.tools: .venv/.package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
