# A few system calls failing in every part of the program; all of them: make faults.
. "$(dirname "$0")/lib.sh"
if [ -n "${SANITIZED:-}" ]; then skip "faults under a sanitizer"; done_testing; fi
FAULTS=${FAULTS:-1} "$ROOT/tests/faults/run" tokenize convert-gguf convert-folder quantize-best calibrate verify-baseline verify-merge fold compare
