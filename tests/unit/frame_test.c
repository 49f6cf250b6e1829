/* The envelope: what it carries comes back, and nothing that was changed, cut or invented does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "wire/command.h"
#include "wire/frame.h"

static void build(struct buf *b, const char *body, const char *attachment)
{
    buf_init(b, FRAME_MAX_BYTES);
    frame_begin_request(b, COMMAND_PRODUCE, 77, 5000);
    buf_append(b, body, strlen(body));
    if (attachment != NULL) {
        frame_begin_attachment(b);
        buf_append(b, attachment, strlen(attachment));
    }
    assert_true(frame_end(b));
}

/* Makes the checksum right again after a test has changed the header. */
static void sign(struct buf *b)
{
    uint32_t body = get_le32(b->data + 16);
    put_le32(b->data + 28, (uint32_t)checksum_of_two(b->data, 28, b->data + 32, body));
}

static void assert_refused(struct bytes message, enum ferry_err expected)
{
    struct frame f;
    struct err_text e = {{0}};
    assert_int_equal(frame_parse(message, &f, &e), expected);
    assert_true(strlen(e.text) > 0);
}

static void a_request_comes_back_as_it_was_sent(void **state)
{
    (void)state;
    struct buf b;
    struct frame f;
    build(&b, "the body", "the attachment");
    assert_int_equal(frame_parse(buf_bytes(&b), &f, NULL), FERRY_OK);
    assert_int_equal(f.version, FRAME_VERSION);
    assert_int_equal(f.kind, FRAME_REQUEST);
    assert_int_equal(f.command, COMMAND_PRODUCE);
    assert_int_equal(f.status, 0);
    assert_int_equal(f.request_id, 77);
    assert_int_equal(f.timeout_ms, 5000);
    assert_true(bytes_equal(f.body, bytes_of_string("the body")));
    assert_true(bytes_equal(f.attachment, bytes_of_string("the attachment")));
    buf_fini(&b);
}

static void a_reply_carries_the_status(void **state)
{
    (void)state;
    struct buf b;
    struct frame f;
    buf_init(&b, 1024);
    frame_begin_reply(&b, COMMAND_FETCH, UINT64_MAX, FERRY_ERR_THROTTLED);
    assert_true(frame_end(&b));
    assert_int_equal(frame_parse(buf_bytes(&b), &f, NULL), FERRY_OK);
    assert_int_equal(f.kind, FRAME_REPLY);
    assert_int_equal(f.status, FERRY_ERR_THROTTLED);
    assert_true(f.request_id == UINT64_MAX);
    assert_int_equal(f.body.size, 0);
    assert_int_equal(f.attachment.size, 0);
    buf_fini(&b);
}

/* M06: cut at every byte. */
static void a_frame_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct buf b;
    build(&b, "the body", "the attachment");
    for (size_t size = 0; size < b.size; size++) {
        assert_refused(bytes_of(b.data, size), FERRY_ERR_BAD_FRAME);
    }
    buf_fini(&b);
}

/* M06: bytes behind the end, such as a second frame. */
static void a_frame_with_bytes_behind_it_is_refused(void **state)
{
    (void)state;
    struct buf b;
    build(&b, "the body", "the attachment");
    buf_append_u8(&b, 0);
    assert_refused(buf_bytes(&b), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

/* The attachment is not covered: it has checksums of its own. */
static void a_flipped_bit_in_header_or_body_is_refused(void **state)
{
    (void)state;
    struct buf b;
    build(&b, "the body", "the attachment");
    for (size_t bit = 0; bit < (32 + strlen("the body")) * 8; bit++) {
        struct frame f;
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(frame_parse(buf_bytes(&b), &f, NULL), FERRY_OK);
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_fini(&b);
}

static void another_version_is_refused_with_the_request_id(void **state)
{
    (void)state;
    struct buf b;
    struct frame f;
    struct err_text e;
    build(&b, "", NULL);
    b.data[2] = FRAME_VERSION + 1;
    assert_int_equal(frame_parse(buf_bytes(&b), &f, &e), FERRY_ERR_BAD_VERSION);
    assert_int_equal(f.request_id, 77);
    assert_int_equal(f.command, COMMAND_PRODUCE);
    assert_non_null(strstr(e.text, "version 2"));
    buf_fini(&b);
}

/* M09: what the header says against what there is, also where the sum wraps in 32 bits. */
static void sizes_that_lie_are_refused(void **state)
{
    (void)state;
    struct buf b;
    build(&b, "the body", "the attachment");
    const uint32_t lies[][2] = {{9, 14},
                                {8, 15},
                                {8, 13},
                                {UINT32_MAX, 23},
                                {23, UINT32_MAX},
                                {FRAME_BODY_MAX_BYTES + 1, 14},
                                {0, 0}};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        put_le32(b.data + 16, lies[i][0]);
        put_le32(b.data + 20, lies[i][1]);
        assert_refused(buf_bytes(&b), FERRY_ERR_BAD_FRAME);
    }
    buf_fini(&b);
}

static void a_kind_that_does_not_exist_is_refused(void **state)
{
    (void)state;
    struct buf b;
    build(&b, "", NULL);
    b.data[3] = 3;
    sign(&b);
    assert_refused(buf_bytes(&b), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

static void a_request_with_a_status_is_refused(void **state)
{
    (void)state;
    struct buf b;
    build(&b, "", NULL);
    put_le16(b.data + 6, 1);
    sign(&b);
    assert_refused(buf_bytes(&b), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

static void a_body_over_its_limit_does_not_end(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, FRAME_MAX_BYTES);
    frame_begin_request(&b, COMMAND_PRODUCE, 1, 0);
    assert_non_null(buf_extend(&b, FRAME_BODY_MAX_BYTES + 1));
    assert_false(frame_end(&b));
    buf_fini(&b);
}

static void a_buffer_too_small_for_the_frame_is_told_at_the_end(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, FRAME_HEADER_BYTES - 1);
    frame_begin_request(&b, COMMAND_PRODUCE, 1, 0);
    frame_begin_attachment(&b);
    assert_false(frame_end(&b));
    buf_fini(&b);
}

static void no_memory_is_told_at_the_end(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, FRAME_MAX_BYTES);
    mem_test_fail_after(1);
    frame_begin_request(&b, COMMAND_PRODUCE, 1, 0);
    mem_test_fail_after(0);
    assert_false(frame_end(&b));
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_comes_back_as_it_was_sent),
        cmocka_unit_test(a_reply_carries_the_status),
        cmocka_unit_test(a_frame_cut_anywhere_is_refused),
        cmocka_unit_test(a_frame_with_bytes_behind_it_is_refused),
        cmocka_unit_test(a_flipped_bit_in_header_or_body_is_refused),
        cmocka_unit_test(another_version_is_refused_with_the_request_id),
        cmocka_unit_test(sizes_that_lie_are_refused),
        cmocka_unit_test(a_kind_that_does_not_exist_is_refused),
        cmocka_unit_test(a_request_with_a_status_is_refused),
        cmocka_unit_test(a_body_over_its_limit_does_not_end),
        cmocka_unit_test(a_buffer_too_small_for_the_frame_is_told_at_the_end),
        cmocka_unit_test(no_memory_is_told_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
