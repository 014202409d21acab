# include/quire_read.h: compiled as programs compile it, for other machines too; every codec decodes to what convert --dtype f32 says.
. "$(dirname "$0")/lib.sh"
WARN="-O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-qual -Werror"
SAMPLE=$ROOT/examples/read_quire.c

have() { command -v "${1%% *}" >/dev/null 2>&1; }
for cc in "gcc -x c -std=c99" "clang -x c -std=c99" "g++ -x c++ -std=c++11" "clang++ -x c++ -std=c++11"; do
	if have "$cc"; then
		succeeds "$cc: no warnings" $cc $WARN -I"$ROOT/include" "$SAMPLE" -lz -o "$T/read"
		succeeds "$cc: no warnings without zlib" $cc $WARN -DNO_ZLIB -I"$ROOT/include" "$SAMPLE" -o "$T/read-nozlib"
		succeeds "$cc: no warnings without files" $cc $WARN -DQUIRE_READ_NO_FILES -DQUIRE_READ_STATIC -DQUIRE_READ_IMPLEMENTATION \
			-c -include "$ROOT/include/quire_read.h" /dev/null -o "$T/x.o"
	else skip "$cc: no such compiler here"; fi
done
[ -x "$T/read" ] || { not_ok "a reader to test with"; done_testing; }

# same NAME FILE FOLDER: the reader's floats are those of the folder's model.safetensors, tensor by tensor, in whatever order
same() {
	local name=$1 file=$2 folder=$3 at=0 from to t wrong=
	"$T/read" "$file" floats >"$T/floats" 2>"$T/err"
	while read -r t; do
		read -r from to < <(where "$folder" "$t")
		cmp -s -n $((to - from)) -i "$at:$from" "$T/floats" "$folder/model.safetensors" || wrong+=" $t"
		at=$((at + to - from))
	done < <("$T/read" "$file" | sed -n 's/^tensor  *[0-9]*  \([^ ]*\) .*/\1/p')
	[ "$at" -eq "$(stat -c %s "$T/floats")" ] || wrong+=" (sizes)"
	is "$name" "$wrong" ""
}

# every codec that rows can be quantized to, a matrix each, in as few files as there are matrices for
succeeds "the demo" "$QUIRE" convert "$DEMO" -o "$T/x.quire" -q
matrices=$("$T/read" "$T/x.quire" | grep -o 'model\.layers[^ ]*_proj\.weight')
codecs=$("$QUIRE" help schemes | sed -n '/^codecs/,$p' | awk '/^  [a-z][a-z0-9_-]* / && $1 != "name" { print $1 }')
k=0 file=0
mapfile -t rows <<<"$matrices"
: >"$T/recipe"
make_file() {
	file=$((file + 1))
	succeeds "file $file: quantized" "$QUIRE" quantize "$DEMO" -o "$T/$file.quire" -s q8_0 -m rtn --recipe "$T/recipe" --force -q
	succeeds "file $file: as floats" "$QUIRE" convert "$T/$file.quire" --dtype f32 -o "$T/$file" -q
	is "file $file: every codec of the recipe is in it" "$(sed 's/.* = //' "$T/recipe" | sort)" \
		"$("$T/read" "$T/$file.quire" | sed 's/.*  \(model[^ ]*\)  *\([^ ]*\) .*/\1 = \2/' | grep -Fxf "$T/recipe" | sed 's/.* = //' | sort)"
	succeeds "file $file: checksums" "$T/read" "$T/$file.quire" check
	same "file $file: every value as convert has it" "$T/$file.quire" "$T/$file"
	k=0
	: >"$T/recipe"
}
for c in $codecs; do
	echo "${rows[k]} = $c" >>"$T/recipe"
	k=$((k + 1))
	[ $k -lt ${#rows[@]} ] || make_file
done
[ $k -eq 0 ] || make_file
is "codecs tried: as many as help lists" "$(wc -w <<<"$codecs")" "$("$QUIRE" help schemes | sed -n '/^codecs/,$p' | grep -c ' quire')"

# mixtures, and floats in byte planes
succeeds "a mixture" "$QUIRE" quantize "$DEMO" -o "$T/m.quire" -s Q4_K_M -m rtn --compress -q
succeeds "a mixture: as floats" "$QUIRE" convert "$T/m.quire" --dtype f32 -o "$T/m" -q
same "a mixture: every value" "$T/m.quire" "$T/m"
for d in f32 f16 bf16; do
	succeeds "$d in planes" "$QUIRE" convert "$DEMO" -o "$T/$d.quire" --dtype $d --compress -q
	succeeds "$d in planes: as floats" "$QUIRE" convert "$T/$d.quire" --dtype f32 -o "$T/$d" -q
	is "$d in planes: all are" "$("$T/read" "$T/$d.quire" | grep -c 'in planes$')" 47
	same "$d in planes: every value" "$T/$d.quire" "$T/$d"
done
"$T/read" "$T/bf16.quire" tensor model.embed_tokens.weight >"$T/all"
succeeds "some rows" "$T/read" "$T/bf16.quire" tensor model.embed_tokens.weight 700 3
is "some rows: those of the whole" "$(cat "$T/out")" "$(sed -n 701,703p "$T/all")"
exits 2 "rows that are not there" "$T/read" "$T/bf16.quire" tensor model.embed_tokens.weight 1022 3
for f in config.json tokenizer.json tokenizer.model; do
	is "$f" "$("$T/read" "$T/bf16.quire" file $f | sha256sum)" "$(sha256sum <"$DEMO/$f")"
done

# damage; what zlib is needed for
cp "$T/bf16.quire" "$T/bad.quire" && size=$(stat -c %s "$T/bad.quire")
printf '\125\252\125' | dd of="$T/bad.quire" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
exits 3 "damaged" "$T/read" "$T/bad.quire" check
says "damaged: the tensor is named" 'bad\.quire: model\.[^ ]* its bytes are damaged'
head -c $((size - 1)) "$T/bf16.quire" >"$T/cut.quire"
exits 3 "cut off" "$T/read" "$T/cut.quire"
exits 4 "missing" "$T/read" "$T/none.quire"
exits 3 "another file" "$T/read" "$DEMO/model.safetensors"
exits 5 "planes without zlib" "$T/read-nozlib" "$T/bf16.quire" check
says "planes without zlib: what to do" 'compile with QUIRE_READ_ZLIB'
exits 5 "side file without zlib" "$T/read-nozlib" "$T/1.quire" file config.json
succeeds "tensors without zlib" "$T/read-nozlib" "$T/1.quire" check

# other machines: 64 and 32 bits, both byte orders; run where an emulator is
wide=no
cross() { # COMPILER EMULATOR WHAT
	local cc=$1 run=$2 what="${1%% *}, $3" f
	if ! have "$cc" || ! echo 'int main(void) { return 0; }' | $cc -x c - -static -o "$T/cross" 2>/dev/null; then return 1; fi
	# a compiler may put a * b + c together: no value changes
	succeeds "$what: no warnings" $cc -std=c99 -ffp-contract=fast $WARN -static -DNO_ZLIB -I"$ROOT/include" "$SAMPLE" -o "$T/cross" || return 0
	if [ -n "$run" ] && ! have "$run"; then
		skip "$what: runs (no $run here)"
		return 0
	fi
	for f in "$T"/[0-9].quire; do
		is "$what: ${f##*/}: the same floats" "$($run "$T/cross" "$f" floats | sha256sum)" "$("$T/read" "$f" floats | sha256sum)"
		succeeds "$what: ${f##*/}: checksums" $run "$T/cross" "$f" check
	done
}
cross aarch64-linux-gnu-gcc qemu-aarch64-static "64 bits" || skip "arm64: no aarch64-linux-gnu-gcc here"
cross "gcc -m32" "" "32 bits" && wide=yes
cross i686-linux-gnu-gcc qemu-i386-static "32 bits" && wide=yes
cross arm-linux-gnueabihf-gcc qemu-arm-static "32 bits" && wide=yes
cross powerpc-linux-gnu-gcc qemu-ppc-static "32 bits, big-endian" && wide=yes
[ $wide = yes ] || skip "32 bits: neither gcc -m32 nor a compiler for i686, arm or powerpc is here"
done_testing
