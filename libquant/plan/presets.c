/* What each scheme means. The presets follow llama.cpp's llama-quant.cpp (dense models), so that users get what the names promise. */
#include "plan/presets.h"

#define END { ROLE_UNKNOWN, WHEN_ALWAYS, NULL, NULL }
static const char sensitive[] = "sensitive layer: more bits", values[] = "values: more bits", outputs[] = "attention output: more bits";
static const char downs[] = "down projection: more bits";

static const struct recipe_rule q2_k_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "q3_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q3_k", outputs },
	{ ROLE_DOWN, WHEN_ALWAYS, "q3_k", downs },
	END,
};
static const struct recipe_rule q3_k_m_rules[] = {
	{ ROLE_V, WHEN_FIRST_2, "q5_k", sensitive },
	{ ROLE_V, WHEN_ALWAYS, "q4_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q4_k", outputs },
	{ ROLE_DOWN, WHEN_FIRST_16TH, "q5_k", sensitive },
	{ ROLE_DOWN, WHEN_ALWAYS, "q4_k", downs },
	END,
};
static const struct recipe_rule q3_k_l_rules[] = {
	{ ROLE_V, WHEN_ALWAYS, "q5_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q5_k", outputs },
	{ ROLE_DOWN, WHEN_ALWAYS, "q5_k", downs },
	END,
};
static const struct recipe_rule q4_k_s_rules[] = {
	{ ROLE_V, WHEN_FIRST_4, "q5_k", sensitive },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q5_k", sensitive },
	END,
};
static const struct recipe_rule k_m_rules[] = {
	{ ROLE_V, WHEN_MORE, "q6_k", sensitive },
	{ ROLE_DOWN, WHEN_MORE, "q6_k", sensitive },
	END,
};
static const struct recipe_rule iq4_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q5_k", "values shared by many heads: more bits" },
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITHOUT_IMPORTANCE, "q5_k", sensitive },
	END,
};
/* Of iq1 and the smaller iq2: what tells most has a plain grid. */
static const struct recipe_rule iq2_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "q2_k", "embedding" },
	{ ROLE_V, WHEN_SHARED, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "q2_k", values },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q2_k", sensitive },
	END,
};
static const struct recipe_rule iq1_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "q2_k", "embedding" },
	{ ROLE_V, WHEN_SHARED, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "q2_k", values },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q2_k", sensitive },
	{ ROLE_O, WHEN_ALWAYS, "iq2_xxs", outputs },
	END,
};
static const struct recipe_rule iq2_s_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "iq3_s", "embedding" },
	{ ROLE_V, WHEN_SHARED, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "iq3_s", values },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "iq3_s", sensitive },
	{ ROLE_O, WHEN_ALWAYS, "iq3_s", outputs },
	END,
};
static const struct recipe_rule iq3_xxs_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "iq3_s", "embedding" },
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_WITHOUT_IMPORTANCE, "iq3_s", values },
	{ ROLE_Q, WHEN_ALWAYS, "iq2_s", "queries and keys: fewer bits" },
	{ ROLE_K, WHEN_ALWAYS, "iq2_s", "queries and keys: fewer bits" },
	{ ROLE_O, WHEN_ALWAYS, "iq3_s", outputs },
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITHOUT_IMPORTANCE, "q4_k", sensitive },
	{ ROLE_DOWN, WHEN_WITHOUT_IMPORTANCE, "q3_k", downs },
	END,
};
static const struct recipe_rule iq3_xs_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_Q, WHEN_ALWAYS, "iq3_xxs", "queries and keys: fewer bits" },
	{ ROLE_K, WHEN_ALWAYS, "iq3_xxs", "queries and keys: fewer bits" },
	{ ROLE_GATE, WHEN_MIDDLE, "iq3_xxs", "middle layers: fewer bits" },
	{ ROLE_UP, WHEN_MIDDLE, "iq3_xxs", "middle layers: fewer bits" },
	END,
};
static const struct recipe_rule iq3_s_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	END,
};
static const struct recipe_rule iq3_m_rules[] = {
	{ ROLE_V, WHEN_ALWAYS, "q4_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q4_k", outputs },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q4_k", sensitive },
	END,
};
static const struct recipe_rule ternary_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "q4_k", "embedding" },
	END,
};
static const struct recipe_rule mxfp4_moe_rules[] = {
	{ ROLE_GATE, WHEN_EXPERTS, "mxfp4", "experts" },
	{ ROLE_UP, WHEN_EXPERTS, "mxfp4", "experts" },
	{ ROLE_DOWN, WHEN_EXPERTS, "mxfp4", "experts" },
	END,
};
static const struct recipe_rule q4_0_rules[] = {
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITH_IMPORTANCE, "q4_1", sensitive },
	END,
};
static const struct recipe_rule q5_0_rules[] = {
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITH_IMPORTANCE, "q5_1", sensitive },
	END,
};

const struct recipe_row recipe_rows[] = {
	{ "IQ1_S", "1.6 bits from a codebook, values and first layers 2.6", 24, "iq1_s", iq1_rules },
	{ "IQ1_M", "1.75 bits from a codebook, values and first layers 2.6", 31, "iq1_m", iq1_rules },
	{ "TQ1_0", "1.7 bits, for models trained with ternary weights", 36, "tq1_0", ternary_rules },
	{ "TQ2_0", "2.1 bits, for models trained with ternary weights", 37, "tq2_0", ternary_rules },
	{ "IQ2_XXS", "2.1 bits from a codebook, values and first layers 2.6", 19, "iq2_xxs", iq2_rules },
	{ "IQ2_XS", "2.3 bits from a codebook, values and first layers 2.6", 20, "iq2_xs", iq2_rules },
	{ "IQ2_S", "2.3 bits from a codebook, sensitive tensors 3.4", 28, "iq2_xs", iq2_s_rules },
	{ "IQ2_M", "2.6 bits from a codebook, sensitive tensors 3.4", 29, "iq2_s", iq2_s_rules },
	{ "IQ3_XXS", "3.1 bits from a codebook, queries and keys 2.6", 23, "iq3_xxs", iq3_xxs_rules },
	{ "IQ3_XS", "3.1 or 3.4 bits from a codebook", 22, "iq3_s", iq3_xs_rules },
	{ "IQ3_S", "3.4 bits from a codebook", 26, "iq3_s", iq3_s_rules },
	{ "IQ3_M", "3.4 bits from a codebook, sensitive tensors 4.5", 27, "iq3_s", iq3_m_rules },
	{ "Q2_K", "2.6 bits, values and down projections 3.4", 10, "q2_k", q2_k_rules },
	{ "Q3_K_S", "3.4 bits everywhere", 11, "q3_k", NULL },
	{ "Q3_K_M", "3.4 bits, sensitive tensors 4.5 or 5.5", 12, "q3_k", q3_k_m_rules },
	{ "Q3_K_L", "3.4 bits, sensitive tensors 5.5", 13, "q3_k", q3_k_l_rules },
	{ "IQ4_XS", "4.25 bits on a non-uniform grid", 30, "iq4_xs", iq4_rules },
	{ "IQ4_NL", "4.5 bits on a non-uniform grid, blocks of 32", 25, "iq4_nl", iq4_rules },
	{ "Q4_0", "4.5 bits, blocks of 32: the fastest to decode", 2, "q4_0", q4_0_rules },
	{ "Q4_1", "5 bits, blocks of 32 with an offset", 3, "q4_1", NULL },
	{ "Q4_K_S", "4.5 bits, first layers 5.5", 14, "q4_k", q4_k_s_rules },
	{ "Q4_K_M", "4.5 bits, sensitive tensors 6.6: a good first choice", 15, "q4_k", k_m_rules },
	{ "Q5_0", "5.5 bits, blocks of 32", 8, "q5_0", q5_0_rules },
	{ "Q5_1", "6 bits, blocks of 32 with an offset", 9, "q5_1", NULL },
	{ "Q5_K_S", "5.5 bits everywhere", 16, "q5_k", NULL },
	{ "Q5_K_M", "5.5 bits, sensitive tensors 6.6", 17, "q5_k", k_m_rules },
	{ "Q6_K", "6.6 bits: close to lossless", 18, "q6_k", NULL },
	{ "MXFP4_MOE", "experts 4.25 bits as OCP MX, all else 8.5", 38, "q8_0", mxfp4_moe_rules },
	{ "Q8_0", "8.5 bits: nearly lossless, fast", 7, "q8_0", NULL },
	{ "F16", "half precision, vectors f32", 1, "f16", NULL },
	{ "BF16", "bfloat16, vectors f32", 32, "bf16", NULL },
	{ "F32", "single precision", 0, "f32", NULL },
};
const unsigned recipe_row_count = sizeof recipe_rows / sizeof *recipe_rows;

/* Names of other tools for schemes that are one codec throughout. */
const struct scheme_alias scheme_aliases[] = {
	{ "W4A16", "int4-g128", false }, { "W4A16_ASYM", "int4-g128-zp", false }, { "W8A16", "int8-row", false },
	{ "W8A8", "int8-row", true },
};
const unsigned scheme_alias_count = sizeof scheme_aliases / sizeof *scheme_aliases;

/* general.file_type of a file with one k-quant throughout: llama.cpp's name for it. */
const struct pure_type pure_types[] = {
	{ "f32", 0 }, { "f16", 1 }, { "q4_0", 2 }, { "q4_1", 3 }, { "q8_0", 7 }, { "q5_0", 8 }, { "q5_1", 9 }, { "q2_k", 10 },
	{ "q3_k", 11 }, { "q4_k", 14 }, { "q5_k", 16 }, { "q6_k", 18 }, { "iq4_nl", 25 }, { "iq4_xs", 30 }, { "bf16", 32 },
	{ "mxfp4", 38 }, { "nvfp4", 39 }, { "q1_0", 40 }, { "q2_0", 41 }, { "tq1_0", 36 }, { "tq2_0", 37 },
	{ "iq2_xxs", 19 }, { "iq2_xs", 20 }, { "iq3_xxs", 23 }, { "iq1_s", 24 }, { "iq3_s", 26 }, { "iq2_s", 28 }, { "iq1_m", 31 },
};
const unsigned pure_type_count = sizeof pure_types / sizeof *pure_types;
