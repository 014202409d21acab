/*
 * Pre-tokenizers that GGUF has names for. A family's own tokenizer.json is what counts; where llama.cpp splits otherwise
 * (docs/formats/gguf.md), its splits are an approximation of that. A family whose file is not at hand has the expressions
 * that llama.cpp goes by. To add one: a row, and its parts if no other row has them.
 */
#include "text/pre_known.h"

#include <stddef.h>
#include <string.h>

#define CONTRACTION  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define REST         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES
#define AHEAD        "[^\\r\\n\\p{L}\\p{N}]?"
#define CL100K(digits) CONTRACTION "|" AHEAD "\\p{L}+|" digits REST
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(tail, digits) \
	AHEAD UPPER "*" LOWER "+" tail "|" AHEAD UPPER "+" LOWER "*" tail "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define KIMI_UPPER   "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_LOWER   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define GPT2         "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define HAN_KANA     "[一-龥\u3040-ゟ゠-ヿ]+"
#define ASCII_STOP   "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define STOP_WORD(newline) ASCII_STOP "|[^" newline "\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
#define THREES       "(?=(?:\\p{N}{3})*(?!\\p{N}))"
#define BLOOM        " ?[^(\\s|[.,!?…。，、।۔،])]+"
#define DEEPSEEK_WORD \
	"\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛ" \
	"ὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-" \
	"ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
#define AFMOE_SCRIPTS \
	"[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
#define YOUTU_SCRIPTS \
	"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"

#define PARTS(name, ...) static const struct pre_part name[] = { __VA_ARGS__, { .kind = PRE_END } }
#define SPLIT(re)    { .kind = PRE_SPLIT, .pattern = re }
#define PART(which)  { .kind = PRE_##which }

PARTS(gpt2, PART(WORDS));
PARTS(digits_gpt2, PART(DIGITS), PART(WORDS));
PARTS(llama3, SPLIT(CL100K("\\p{N}{1,3}")), PART(BYTES));
PARTS(qwen2, SPLIT(CL100K("\\p{N}")), PART(BYTES));
PARTS(qwen35, SPLIT(CONTRACTION "|" AHEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES), PART(BYTES));
PARTS(ufakzeka, SPLIT(AHEAD "\\p{L}+|\\p{N}" REST), PART(BYTES));
PARTS(tekken, SPLIT(CASED("", "\\p{N}")), PART(BYTES));
PARTS(o200k, SPLIT(CASED(CONTRACTION "?", "\\p{N}{1,3}")), PART(BYTES));
PARTS(falcon, PART(PUNCTUATION), PART(WORDS), PART(DIGIT_RUNS), SPLIT("[0-9][0-9][0-9]"));
PARTS(falcon3, PART(PUNCTUATION), PART(WORDS), PART(DIGITS));
PARTS(deepseek_llm, SPLIT("[\r\n]"), SPLIT(DEEPSEEK_WORD), SPLIT("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), SPLIT("\\s+$"),
	SPLIT("[一-龥ࠀ-一가-\xed\x9f\xbf]+"), PART(DIGITS), PART(BYTES));
PARTS(deepseek_coder, SPLIT("[\r\n]"), SPLIT("\\s?\\p{L}+"), SPLIT("\\s?\\p{P}+"), SPLIT("[一-龥ࠀ-一가-\xed\x9f\xbf]+"),
	PART(DIGITS), PART(BYTES));
PARTS(deepseek_v3, SPLIT("\\p{N}{1,3}"), SPLIT(HAN_KANA), SPLIT(STOP_WORD("\r\n") "[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
	PART(BYTES));
PARTS(spark, SPLIT("\\p{N}{1,3}"), SPLIT(HAN_KANA), SPLIT(STOP_WORD("\r\n") "|[\r\n]|\\s+(?!\\S)|\\s+"), PART(DIGITS),
	PART(BYTES));
PARTS(afmoe, SPLIT("\\p{N}{1,3}" THREES), SPLIT(AFMOE_SCRIPTS), SPLIT(STOP_WORD("\\r\\n") "[\\r\\n]*" SPACES), PART(BYTES));
PARTS(youtu, SPLIT(YOUTU_SCRIPTS), SPLIT(CASED(CONTRACTION "?", "\\p{N}")), PART(BYTES));
PARTS(bloom, SPLIT(BLOOM), PART(BYTES));
PARTS(viking, SPLIT(BLOOM), PART(DIGITS), PART(BYTES));
PARTS(chameleon, SPLIT("<sentinel:[0-9]+>"), SPLIT("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"), SPLIT("([\\t\\n]|    |  )"), PART(DIGITS),
	PART(STOPS), PART(WORDS));
PARTS(kimi, SPLIT("[\\p{Han}]+|" AHEAD KIMI_UPPER "*" KIMI_LOWER "+" CONTRACTION "?|" AHEAD KIMI_UPPER "+" KIMI_LOWER "*" CONTRACTION "?|\\p{N}{1,3}" REST),
	PART(BYTES));
PARTS(superbpe, SPLIT("\\p{N}+"), SPLIT("(?=(\\d{3})+(?!\\d))"), PART(BYTES));
PARTS(bailing, SPLIT("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"),
	PART(BYTES));
PARTS(seed_coder, SPLIT(CONTRACTION "|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
	PART(BYTES));
PARTS(laguna, { .kind = PRE_SPLIT_NEXT, .pattern = "(?:\\r?\\n)+(?!\\r?\\n)" }, SPLIT(CL100K("\\p{N}")), PART(BYTES));
PARTS(exaone_moe, SPLIT(CONTRACTION "|" AHEAD "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"),
	PART(BYTES));
PARTS(minicpm5, SPLIT("\\p{N}{1,3}"), SPLIT(CL100K("\\p{N}+")), PART(BYTES));
PARTS(tiny_aya, SPLIT("\\d{1,3}(?=(?:\\d{3})*\\b)"), SPLIT(CASED(CONTRACTION "?", "\\p{N}{1,3}")), PART(BYTES));
PARTS(jais2, SPLIT(CONTRACTION "|" AHEAD "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|"
	"\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"), PART(BYTES));
/* what llama.cpp does where nothing is said */
PARTS(unnamed, SPLIT("[\\p{P}\\$\\+<=>\\^~\\|]+"), SPLIT(GPT2), SPLIT("\\p{N}+"), SPLIT("[0-9][0-9][0-9]"), PART(BYTES));

/* Of rows with the same parts the first is the one that is written. */
#define NAME(n, p) .name = n, .parts = p
#define WHOLE .ignore_merges = true
#define NFC .normalizer = "NFC"
static const struct pre_known known[] = {
	{ NAME("gpt-2", gpt2) }, { NAME("phi-2", gpt2) }, { NAME("jina-es", gpt2) }, { NAME("jina-de", gpt2) },
	{ NAME("jina-v2-es", gpt2) }, { NAME("jina-v2-de", gpt2) }, { NAME("jina-v1-en", gpt2) },
	{ NAME("jina-v2-code", gpt2) }, { NAME("roberta-bpe", gpt2) }, { NAME("gigachat", gpt2) },
	{ NAME("a.x-4.0", gpt2) }, { NAME("mellum", gpt2) }, { NAME("exaone4", gpt2) }, { NAME("jais", gpt2) },
	{ NAME("trillion", gpt2) }, { NAME("granite-docling", gpt2) },
	{ NAME("mpt", gpt2), NFC }, { NAME("olmo", gpt2), NFC }, { NAME("modern-bert", gpt2), NFC },
	{ NAME("smollm", digits_gpt2) }, { NAME("starcoder", digits_gpt2) }, { NAME("codeshell", digits_gpt2) },
	{ NAME("refact", digits_gpt2) }, { NAME("exaone", digits_gpt2) }, { NAME("minerva-7b", digits_gpt2) },
	{ NAME("mellum2", digits_gpt2) },
	{ NAME("command-r", digits_gpt2), NFC },
	{ NAME("llama-bpe", llama3), WHOLE, .add_bos = true }, { NAME("llama3", llama3), WHOLE, .add_bos = true },
	{ NAME("llama-v3", llama3), WHOLE, .add_bos = true }, { NAME("pixtral", llama3), WHOLE, .add_bos = true },
	{ NAME("midm-2.0", llama3), WHOLE, .add_bos = true }, { NAME("lfm2", llama3), WHOLE, .add_bos = true },
	{ NAME("jina-v5-nano", llama3), WHOLE, .add_bos = true }, { NAME("falcon-h1", llama3), WHOLE, .add_bos = true },
	{ NAME("dbrx", llama3) }, { NAME("smaug-bpe", llama3) }, { NAME("chatglm-bpe", llama3) },
	{ NAME("glm4", llama3), WHOLE }, { NAME("glm5", llama3), WHOLE },
	{ NAME("qwen2", qwen2), NFC }, { NAME("deepseek-r1-qwen", qwen2), NFC }, { NAME("stablelm2", qwen2), NFC },
	{ NAME("megrez", qwen2), NFC }, { NAME("f2llmv2", qwen2), NFC },
	{ NAME("hunyuan", qwen2) }, { NAME("grok-2", qwen2) }, { NAME("solar-open", qwen2) }, { NAME("kormo", qwen2) },
	{ NAME("qwen35", qwen35), NFC },
	{ NAME("ufakzeka", ufakzeka) },
	{ NAME("tekken", tekken), WHOLE, .add_bos = true },
	{ NAME("gpt-4o", o200k) }, { NAME("llama4", o200k) }, { NAME("kanana2", o200k) }, { NAME("talkie", o200k) },
	{ NAME("minimax-m2", o200k), NFC },
	{ NAME("granite-embed-multi-97m", o200k), WHOLE },
	{ NAME("falcon", falcon) },
	{ NAME("falcon3", falcon3), WHOLE, .add_bos = true },
	{ NAME("deepseek-llm", deepseek_llm) },
	{ NAME("deepseek-coder", deepseek_coder) },
	{ NAME("deepseek-v3", deepseek_v3) }, { NAME("hunyuan-dense", deepseek_v3) }, { NAME("joyai-llm", deepseek_v3) },
	{ NAME("hy_v4", deepseek_v3) },
	{ NAME("spark2_5", spark) },
	{ NAME("afmoe", afmoe) },
	{ NAME("youtu", youtu), WHOLE },
	{ NAME("bloom", bloom) }, { NAME("poro-chat", bloom) }, { NAME("gpt3-finnish", bloom) },
	{ NAME("viking", viking) },
	{ NAME("chameleon", chameleon), .add_bos = true },
	{ NAME("kimi-k2", kimi) },
	{ NAME("superbpe", superbpe) },
	{ NAME("bailingmoe", bailing) }, { NAME("bailingmoe2", bailing) }, { NAME("llada-moe", bailing) },
	{ NAME("seed-coder", seed_coder) },
	{ NAME("laguna", laguna) },
	{ NAME("exaone-moe", exaone_moe) },
	{ NAME("minicpm5", minicpm5), WHOLE },
	{ NAME("tiny_aya", tiny_aya) }, { NAME("cohere2moe", tiny_aya) },
	{ NAME("jais-2", jais2) },
	{ NAME("default", unnamed) },
};

const struct pre_known *pre_known_row(size_t i)
{
	return i < sizeof known / sizeof *known ? &known[i] : NULL;
}

const struct pre_known *pre_known_find(const char *name)
{
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].name, name))
			return &known[i];
	return NULL;
}

/* How a part is said in tokenizer.json. */
const struct pre_kind pre_kinds[] = {
	[PRE_SPLIT] = { "Split", "Isolated", NULL, false },
	[PRE_SPLIT_NEXT] = { "Split", "MergedWithNext", NULL, false },
	[PRE_DIGITS] = { "Digits", NULL, "individual_digits", true },
	[PRE_DIGIT_RUNS] = { "Digits", NULL, "individual_digits", false },
	[PRE_PUNCTUATION] = { "Punctuation", "Contiguous", NULL, false },
	[PRE_STOPS] = { "Punctuation", "Isolated", NULL, false },
	[PRE_WORDS] = { "ByteLevel", NULL, "use_regex", true },
	[PRE_BYTES] = { "ByteLevel", NULL, "use_regex", false },
};

static void part_json(struct json_writer *w, const char *key, const struct pre_part *p, bool prefix_space)
{
	const struct pre_kind *k = &pre_kinds[p->kind];
	jw_object(w, key);
	jw_string(w, "type", k->type);
	if (p->pattern) {
		jw_object(w, "pattern");
		jw_string(w, "Regex", p->pattern);
		jw_end_object(w);
	}
	if (k->behavior)
		jw_string(w, "behavior", k->behavior);
	if (p->pattern)
		jw_bool(w, "invert", false);
	if (p->kind == PRE_WORDS || p->kind == PRE_BYTES) {
		jw_bool(w, "add_prefix_space", prefix_space);
		jw_bool(w, "trim_offsets", true);
	}
	if (k->flag)
		jw_bool(w, k->flag, k->set);
	jw_end_object(w);
}

void pre_known_json(struct json_writer *w, const char *key, const struct pre_part *parts, bool prefix_space)
{
	if (!parts[1].kind) {
		part_json(w, key, parts, prefix_space);
		return;
	}
	jw_object(w, key);
	jw_string(w, "type", "Sequence");
	jw_array(w, "pretokenizers");
	for (const struct pre_part *p = parts; p->kind; p++)
		part_json(w, NULL, p, prefix_space && p == parts);
	jw_end_array(w);
	jw_end_object(w);
}
