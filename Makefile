# Two commands: `make demo` draws the example images from their feature maps, `make test` runs every
# test. Both set up what they need first (scripts/setup.sh); each step is skipped when it is done.

BUILD := build

.PHONY: demo test setup build format format-check clean

demo: build
	@scripts/demo.sh $(BUILD)

test: build
	@cd $(BUILD) && ctest --output-on-failure --no-tests=error

build: setup
	@cmake --preset default $(CMAKE_ARGS) > $(BUILD)-configure.log 2>&1 || { cat $(BUILD)-configure.log; exit 1; }
	@rm -f $(BUILD)-configure.log
	@cmake --build $(BUILD)

setup:
	@scripts/setup.sh

format format-check: setup
	@scripts/format.sh $(if $(filter format-check,$@),--check)

clean:
	rm -rf $(BUILD) build-dev build-sanitize
