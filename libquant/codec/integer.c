/* Plain integers: carried from file to file (position tables, masks), read as numbers, never quantized to. */
#include "base/bytes.h"
#include "codec/rows.h"

#define INTEGER_ROW(ID, NAME, BYTES, GGUF, ST, VALUE, SUMMARY) \
	static void decode_##ID(const struct codec *c, const void *src, float *dst, size_t n) \
	{ \
		(void)c; \
		for (size_t i = 0; i < n; i++) { \
			const uint8_t *p = (const uint8_t *)src + BYTES * i; \
			dst[i] = (float)(VALUE); \
		} \
	} \
	const struct codec codec_##ID = { \
		.name = NAME, .summary = SUMMARY, .kind = CODEC_INTEGER, .block = 1, .block_bytes = BYTES, .sub = 1, \
		.bits = 8 * BYTES, .gguf_type = GGUF, .safetensors = ST, .decode = decode_##ID }

INTEGER_ROW(i8, "i8", 1, 24, "I8", (int8_t)*p, "8-bit signed integer");
INTEGER_ROW(i16, "i16", 2, 25, "I16", (int16_t)load_u16(p), "16-bit signed integer");
INTEGER_ROW(i32, "i32", 4, 26, "I32", (int32_t)load_u32(p), "32-bit signed integer");
INTEGER_ROW(i64, "i64", 8, 27, "I64", (int64_t)load_u64(p), "64-bit signed integer");
INTEGER_ROW(u8, "u8", 1, -1, "U8", *p, "8-bit unsigned integer");
INTEGER_ROW(u16, "u16", 2, -1, "U16", load_u16(p), "16-bit unsigned integer");
INTEGER_ROW(u32, "u32", 4, -1, "U32", load_u32(p), "32-bit unsigned integer");
INTEGER_ROW(u64, "u64", 8, -1, "U64", load_u64(p), "64-bit unsigned integer");
INTEGER_ROW(boolean, "bool", 1, -1, "BOOL", *p ? 1 : 0, "truth value in a byte");
