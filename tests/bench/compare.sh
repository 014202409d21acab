# What comparing six schemes costs against verifying each on its own and one pass of the reference; fails above 1.3 times.
T=$(mktemp -d "${TMPDIR:-/tmp}/quire-bench-XXXXXX")
trap 'rm -rf "$T"' EXIT
model=examples/demo text=examples/demo.eval.txt
run="--data $text --ctx 256 --chunks ${QUIRE_BENCH_CHUNKS:-60} -q"
schemes="Q8_0 Q6_K Q5_K_M Q4_K_M Q4_0 IQ4_XS"
TIMEFORMAT='%U %S'
seconds() { # COMMAND...: prints processor time, which other programs disturb less
	{ time "$@" >/dev/null 2>&1; } 2>&1 | awk '{ print $1 + $2 }'
}
export OMP_WAIT_POLICY=passive
list=$(echo $schemes | tr ' ' ,)
both=$(seconds "$QUIRE" compare $model $run --schemes "$list" --work "$T/work")
rm -f "$T"/work/*.part # the figures go, the variants stay
compare=$(seconds "$QUIRE" compare $model $run --schemes "$list" --work "$T/work")
reference=$(seconds "$QUIRE" verify $model $run)
sum=$reference
for s in $schemes; do
	t=$(seconds "$QUIRE" verify "$T"/work/"$s"-*.quire $run)
	sum=$(awk -v a="$sum" -v b="$t" 'BEGIN { print a + b }')
done
awk -v b="$both" -v c="$compare" -v s="$sum" 'BEGIN {
	printf "six verifications and one pass of the reference  %7.2f s of processor time\n", s
	printf "compare, variants there                          %7.2f s  %5.2f x\n", c, c / s
	printf "compare, variants made as well                   %7.2f s  %5.2f x\n", b, b / s
	if (!(s > 0 && c > 0 && c <= 1.3 * s)) { print "over 1.3 x"; exit 1 } }'
