# The error that the search leaves as a part of what llama.cpp's leaves on the same matrices, at the same type: below 1 is better.
# In brackets the worst matrix. LLAMA names the folder with llama-quantize; without it there is nothing to compare with.
# MODEL and TEXT (default: the demo), TYPES select what is run.
LLAMA=${LLAMA:-$(dirname "$(command -v llama-quantize || echo /nowhere/x)")}
if [ ! -x "$LLAMA/llama-quantize" ]; then
	echo "llama-quantize is not there (LLAMA=folder): nothing to compare with"
	exit 0
fi
MODEL=${MODEL:-examples/demo} TEXT=${TEXT:-examples/demo.calib.txt}
TYPES=${TYPES:-q4_0 q4_1 q5_0 q5_1 q8_0 q4_k q5_k q6_k}
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
export LD_LIBRARY_PATH=$LLAMA${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
"$QUIRE" convert "$MODEL" -o "$T/f32.gguf" --dtype f32 -q || exit 1
"$QUIRE" calibrate "$MODEL" --data "$TEXT" --ctx 256 --samples 64 -o "$T/imatrix.gguf" -q >/dev/null || exit 1
ours() { "$QUIRE" quantize "$MODEL" -s "pure-$1" -o "$T/a.gguf" -f -q "${@:2}" || exit 1; }
theirs() { "$LLAMA/llama-quantize" --pure "${@:2}" "$T/f32.gguf" "$T/b.gguf" "${1^^}" >"$T/log" 2>&1 || { cat "$T/log"; exit 1; }; }
printf '%s\n' "$MODEL"
for t in $TYPES; do
	name=$t
	case $t in q4_k | q5_k) name=${t}_s ;; esac
	ours "$t" -m search
	theirs "$name"
	printf '%-6s search   %s\n' "$t" "$("$B"/bench/rate_error "$MODEL" "$T/a.gguf" "$T/b.gguf")"
	ours "$t" -m imatrix --stats "$T/imatrix.gguf"
	theirs "$name" --imatrix "$T/imatrix.gguf"
	printf '%-6s imatrix  %s\n' "$t" "$("$B"/bench/rate_error "$MODEL" "$T/a.gguf" "$T/b.gguf" "$T/imatrix.gguf")"
done
