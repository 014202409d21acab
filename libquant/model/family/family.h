#ifndef QUIRE_MODEL_FAMILY_H
#define QUIRE_MODEL_FAMILY_H
/* One family a file: its row, and the function that writes a layer. A new one is a line of FAMILIES. */
#include "model/graph.h"
#include "model/keys.h"
#include "model/stored.h"

/* Of two that share a name in GGUF the first is taken, where nothing tells them apart (mistral reads back as llama). */
#define FAMILIES(F) \
	F(llama) \
	F(mistral) \
	F(qwen2) \
	F(qwen3) \
	F(gemma) \
	F(gemma2) \
	F(gemma3) \
	F(gpt_neox) \
	F(gpt2) \
	F(qwen3_moe) \
	F(mixtral) \
	F(smollm3) \
	F(starcoder2) \
	F(olmo2) \
	F(ministral3) \
	F(granite) \
	F(gpt_bigcode) \
	F(cohere) \
	F(cohere2) \
	F(stablelm) \
	F(opt) \
	F(gptj) \
	F(bloom) \
	F(falcon) \
	F(phi3) \
	F(olmo3) \
	F(olmoe) \
	F(phi) \
	F(deci) \
	F(step35) \
	F(gemma4)
#define DECLARE(name) extern const struct arch family_##name;
FAMILIES(DECLARE)
#undef DECLARE

/* Rows of Q and K in pairs, as llama.cpp's "llama" has them. */
extern const struct role_layout layouts_rope_pairs[];
/* The experts of a layer in one tensor, as newer transformers can write them. */
extern const struct stored stored_fused_experts[];

#endif
