#ifndef QUIRE_MODEL_FAMILY_H
#define QUIRE_MODEL_FAMILY_H
/* One family a file: its row, and the function that writes a layer. A new one is declared here and listed in model/arch.c. */
#include "model/graph.h"
#include "model/keys.h"
#include "model/stored.h"

extern const struct arch family_deci, family_gemma, family_gemma2, family_gemma3, family_gemma4, family_gpt_neox, family_gpt2, family_llama, family_mistral, family_mixtral, family_qwen2, family_qwen3,
	family_qwen3_moe, family_smollm3, family_starcoder2, family_olmo2, family_ministral3, family_granite,
	family_gpt_bigcode, family_cohere, family_cohere2, family_stablelm,
	family_opt, family_gptj, family_bloom, family_falcon, family_phi3, family_step35, family_olmo3, family_olmoe, family_phi;

/* Rows of Q and K in pairs, as llama.cpp's "llama" has them. */
extern const struct role_layout layouts_rope_pairs[];
/* The experts of a layer in one tensor, as newer transformers can write them. */
extern const struct stored stored_fused_experts[];

#endif
