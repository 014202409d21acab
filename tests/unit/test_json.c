/* The writer: what a string may hold, and integers to the last digit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"

static void strings_are_escaped(void **state)
{
	(void)state;
	struct strbuf out = { 0 };
	struct json_writer w = { .out = &out };
	jw_object(&w, NULL);
	jw_string(&w, "a\"b", "\\ \n\t\r\x01\x7f");
	jw_string(&w, "\xc3\xa9", "plain \xe2\x96\x81 text");
	jw_string(&w, "bad", "x\xff\xe2\x96y");
	jw_string(&w, "", "");
	jw_end_object(&w);
	assert_string_equal(out.data, "{\"a\\\"b\":\"\\\\ \\n\\t\\r\\u0001\\u007f\",\"\xc3\xa9\":\"plain \xe2\x96\x81 text\","
				      "\"bad\":\"x\\ufffd\\ufffd\\ufffdy\",\"\":\"\"}");
	strbuf_clear(&out);
	w = (struct json_writer){ .out = &out };
	jw_string_n(&w, NULL, "a\0b", 3);
	assert_string_equal(out.data, "\"a\\u0000b\"");
	strbuf_release(&out);
}

static void integers_have_all_their_digits(void **state)
{
	(void)state;
	struct strbuf out = { 0 };
	struct json_writer w = { .out = &out };
	jw_array(&w, NULL);
	jw_uint(&w, NULL, 0);
	jw_uint(&w, NULL, 18446744073709551615u);
	jw_int(&w, NULL, -1);
	jw_int(&w, NULL, INT64_MIN);
	jw_int(&w, NULL, INT64_MAX);
	jw_end_array(&w);
	assert_string_equal(out.data, "[0,18446744073709551615,-1,-9223372036854775808,9223372036854775807]");
	strbuf_release(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings_are_escaped),
		cmocka_unit_test(integers_have_all_their_digits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
