/* Commands: each struct of command.h, filled from its own table, comes back; cut, short, changed
 * or over its maxima it is refused. And names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/prng.h"
#include "wire/command_layouts.h"

#define SEED  20260722u
#define LIMIT (1u << 20)

static const uint8_t filling[STATUS_JSON_MAX_BYTES] = {'x', 'y', 'z'};

/* ---- Filling a struct from its table ---- */

static struct bytes random_run(struct prng *prng, uint32_t max)
{
    /* The ends of the range are where mistakes are. */
    const uint64_t choices[] = {0, 1, max, prng_below(prng, (uint64_t)max + 1)};
    return bytes_of(filling, (size_t)choices[prng_below(prng, 4)]);
}

static uint64_t random_number(struct prng *prng)
{
    return prng_next(prng) >> prng_below(prng, 64);
}

static void fill_value(struct prng *prng, const struct layout_row *row, uint8_t *member)
{
    switch (row->kind) {
    case LAYOUT_BOOL:
        *(bool *)member = prng_below(prng, 2) == 1;
        break;
    case LAYOUT_U16:
        put_le16(member, (uint16_t)random_number(prng));
        break;
    case LAYOUT_U32:
        put_le32(member, (uint32_t)random_number(prng));
        break;
    case LAYOUT_U64:
        put_le64(member, random_number(prng));
        break;
    case LAYOUT_I64:
        put_le64(member, random_number(prng) ^ (prng_below(prng, 2) == 1 ? UINT64_MAX : 0));
        break;
    case LAYOUT_ID:
        put_le64(member, prng_next(prng));
        put_le64(member + 8, prng_next(prng));
        break;
    default: {
        struct bytes run = random_run(prng, row->max);
        memcpy(member, &run, sizeof(run));
    }
    }
}

static bool is_array(const struct layout_row *row)
{
    return row->kind == LAYOUT_TEXTS || row->kind == LAYOUT_U32S || row->kind == LAYOUT_LIST;
}

/* Both ends of the range, and something between. */
static uint32_t random_count(struct prng *prng, const struct layout_row *row)
{
    if (!is_array(row)) {
        return 0;
    }
    const uint64_t counts[] = {0, 1, row->count_max, prng_below(prng, row->count_max)};
    return (uint32_t)counts[prng_below(prng, 4)];
}

/* Everything but LIST. */
static void fill_plain(struct prng *prng, const struct layout_row *row, uint8_t *v, uint32_t count)
{
    if (row->kind == LAYOUT_TEXTS) {
        put_le32(v + row->count_offset, count);
        for (uint32_t i = 0; i < count; i++) {
            fill_value(prng, row, v + row->offset + i * sizeof(struct bytes));
        }
    } else if (row->kind == LAYOUT_U32S) {
        put_le32(v + row->count_offset, count);
        for (uint32_t i = 0; i < count; i++) {
            put_le32(v + row->offset + i * sizeof(uint32_t), (uint32_t)random_number(prng));
        }
    } else {
        fill_value(prng, row, v + row->offset);
    }
}

static void fill_inner_list(struct prng *prng, const struct layout_row *row, uint8_t *v)
{
    uint32_t count = random_count(prng, row);
    put_le32(v + row->count_offset, count);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < row->item->count; k++) {
            const struct layout_row *inner = &row->item->rows[k];
            fill_plain(prng, inner, v + row->offset + i * row->item->bytes,
                       random_count(prng, inner));
        }
    }
}

static void fill_list(struct prng *prng, const struct layout_row *row, uint8_t *v, uint32_t count)
{
    put_le32(v + row->count_offset, count);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *element = v + row->offset + i * row->item->bytes;
        for (uint32_t k = 0; k < row->item->count; k++) {
            const struct layout_row *inner = &row->item->rows[k];
            if (inner->kind == LAYOUT_LIST) {
                fill_inner_list(prng, inner, element);
            } else {
                fill_plain(prng, inner, element, random_count(prng, inner));
            }
        }
    }
}

/* A partition's place among the endpoints must exist. */
static void mend(const struct layout *layout, void *v)
{
    if (layout == &command_layouts[COMMAND_STRUCT_metadata_reply]) {
        struct metadata_reply *reply = v;
        reply->partition_count = reply->endpoint_count == 0 ? 0 : reply->partition_count;
        for (uint32_t i = 0; i < reply->partition_count; i++) {
            reply->partitions[i].endpoint %= reply->endpoint_count;
        }
    }
}

static void fill(struct prng *prng, const struct layout *layout, uint8_t *v)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct layout_row *row = &layout->rows[i];
        if (row->kind == LAYOUT_LIST) {
            fill_list(prng, row, v, random_count(prng, row));
        } else {
            fill_plain(prng, row, v, random_count(prng, row));
        }
    }
    mend(layout, v);
}

static void encode(struct buf *b, const struct layout *layout, const void *v)
{
    buf_init(b, LIMIT);
    layout_encode(b, layout, v);
    assert_true(buf_ok(b));
}

typedef void with_layout(const struct layout *layout, struct prng *prng, uint8_t *v);

/* Runs the check for each struct, `times` times with other random values. */
static void for_each_struct(with_layout *check, int times)
{
    struct prng prng;
    prng_init(&prng, SEED);
    print_message("seed %u\n", SEED);
    for (size_t i = 0; i < COMMAND_STRUCTS; i++) {
        uint8_t *v = mem_zalloc(1, command_layouts[i].bytes);
        assert_non_null(v);
        for (int n = 0; n < times; n++) {
            fill(&prng, &command_layouts[i], v);
            check(&command_layouts[i], &prng, v);
        }
        mem_free(v);
    }
}

/* ---- All structs ---- */

static void check_round_trip(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    struct buf first, second;
    uint8_t *back = mem_zalloc(1, layout->bytes);
    (void)prng;
    assert_non_null(back);
    encode(&first, layout, v);
    assert_true(first.size <= LIMIT);
    assert_int_equal(layout_decode(buf_bytes(&first), layout, back), FERRY_OK);
    encode(&second, layout, back);
    assert_true(bytes_equal(buf_bytes(&first), buf_bytes(&second)));
    buf_fini(&first);
    buf_fini(&second);
    mem_free(back);
}

static void every_struct_comes_back(void **state)
{
    (void)state;
    for_each_struct(check_round_trip, 50);
}

/* M06. Long ones are cut at every byte of both ends and at steps between. */
static void check_truncation(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    struct buf b;
    (void)prng;
    encode(&b, layout, v);
    for (size_t size = 0; size < b.size; size += size < 300 || b.size - size < 300 ? 1 : 97) {
        assert_int_equal(layout_decode(bytes_of(b.data, size), layout, v), FERRY_ERR_BAD_FRAME);
    }
    buf_append_u8(&b, 0);
    assert_int_equal(layout_decode(buf_bytes(&b), layout, v), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

static void every_struct_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for_each_struct(check_truncation, 1);
}

/* The frame's checksum finds flipped bits; a decoder that meets them all the same stays inside. */
static void check_flips(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    struct buf b;
    (void)prng;
    encode(&b, layout, v);
    size_t bits = (b.size < 400 ? b.size : 400) * 8;
    for (size_t bit = 0; bit < bits; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (layout_decode(buf_bytes(&b), layout, v) == FERRY_OK) {
            check_round_trip(layout, prng, v);
        }
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_fini(&b);
}

static void a_flipped_bit_is_refused_or_is_another_value(void **state)
{
    (void)state;
    for_each_struct(check_flips, 1);
}

/* What a newer version adds at the end is not known here and changes nothing. */
static void check_further_elements(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    struct buf b, longer, again;
    (void)prng;
    encode(&b, layout, v);
    size_t head = layout->count < 16 ? 1 : 3; /* Of the array. */
    buf_init(&longer, LIMIT);
    pack_array(&longer, layout->count + 2);
    buf_append(&longer, b.data + head, b.size - head);
    pack_str(&longer, bytes_of_string("from the future"));
    pack_array(&longer, 1);
    pack_nil(&longer);
    assert_int_equal(layout_decode(buf_bytes(&longer), layout, v), FERRY_OK);
    encode(&again, layout, v);
    assert_true(bytes_equal(buf_bytes(&again), buf_bytes(&b)));
    buf_fini(&b);
    buf_fini(&longer);
    buf_fini(&again);
}

static void elements_of_a_newer_version_are_ignored(void **state)
{
    (void)state;
    for_each_struct(check_further_elements, 5);
}

static void check_missing_elements(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    struct buf b;
    (void)prng;
    buf_init(&b, 16);
    pack_array(&b, 0);
    assert_int_equal(layout_decode(buf_bytes(&b), layout, v), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

static void an_empty_array_is_none_of_them(void **state)
{
    (void)state;
    for_each_struct(check_missing_elements, 1);
}

/* One row as a message of its own. */
static enum ferry_err decode_row(struct bytes body, struct layout_row row, void *v)
{
    struct layout alone = {.rows = &row, .count = 1};
    return layout_decode(body, &alone, v);
}

/* Each text, blob and list in turn holds one more than it may. */
static void check_maxima(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    (void)prng;
    for (uint32_t i = 0; i < layout->count; i++) {
        struct layout_row row = layout->rows[i];
        struct layout alone = {.rows = &row, .count = 1};
        struct bytes run = bytes_of(filling, row.max);
        struct buf b;
        if (row.kind == LAYOUT_LIST) {
            fill_list(prng, &row, v, 2);
        } else if (is_array(&row)) {
            fill_plain(prng, &row, v, 2);
        } else if (row.kind == LAYOUT_TEXT || row.kind == LAYOUT_BLOB) {
            memcpy(v + row.offset, &run, sizeof(run));
        } else {
            continue;
        }
        encode(&b, &alone, v);
        assert_int_equal(decode_row(buf_bytes(&b), row, v), FERRY_OK);
        row.count_max = 1;
        row.max--;
        assert_int_equal(decode_row(buf_bytes(&b), row, v), FERRY_ERR_BAD_FRAME);
        buf_fini(&b);
    }
}

static void more_than_the_maximum_is_refused(void **state)
{
    (void)state;
    for_each_struct(check_maxima, 1);
}

/* ---- Single ones ---- */

static void a_refusal_is_read_as_an_error_too(void **state)
{
    (void)state;
    struct append_cas_refusal refusal = {
        .error = {.detail = bytes_of_string("moved"), .retry_after_ms = 5},
        .version = 3,
        .epoch = 4,
        .cursor = bytes_of_string("cursor"),
        .refused_index = 7,
    };
    struct error_reply error;
    struct buf b;
    buf_init(&b, LIMIT);
    append_cas_refusal_encode(&b, &refusal);
    assert_int_equal(error_reply_decode(buf_bytes(&b), &error), FERRY_OK);
    assert_true(bytes_equal(error.detail, bytes_of_string("moved")));
    assert_int_equal(error.retry_after_ms, 5);
    buf_fini(&b);
}

static void an_error_is_read_as_a_refusal_without_a_cursor(void **state)
{
    (void)state;
    struct error_reply error = {.detail = bytes_of_string("later"), .retry_after_ms = 9};
    struct append_cas_refusal refusal = {.version = 99};
    struct buf b;
    buf_init(&b, LIMIT);
    error_reply_encode(&b, &error);
    assert_int_equal(append_cas_refusal_decode(buf_bytes(&b), &refusal), FERRY_OK);
    assert_int_equal(refusal.error.retry_after_ms, 9);
    assert_int_equal(refusal.version, 0);
    assert_int_equal(refusal.epoch, 0);
    assert_int_equal(refusal.cursor.size, 0);
    assert_int_equal(refusal.refused_index, -1);
    buf_fini(&b);
}

/* Where the elements begin that were added later; the count of rows when there are none. */
static uint32_t first_added(const struct layout *layout)
{
    uint32_t i = 0;
    while (i < layout->count && !layout->rows[i].added) {
        i++;
    }
    return i;
}

/* What a sender of before the additions sends is read, and says nothing in what was added. */
static void check_without_additions(const struct layout *layout, struct prng *prng, uint8_t *v)
{
    struct layout older = *layout;
    struct buf b;
    (void)prng;
    older.count = first_added(layout);
    encode(&b, &older, v);
    assert_int_equal(layout_decode(buf_bytes(&b), layout, v), FERRY_OK);
    for (uint32_t i = older.count; i < layout->count; i++) {
        const struct layout_row *row = &layout->rows[i];
        if (row->kind == LAYOUT_BOOL) {
            assert_int_equal(*(bool *)(v + row->offset), row->absent);
        } else if (row->kind == LAYOUT_U32) {
            assert_int_equal(get_le32(v + row->offset), row->absent);
        }
    }
    buf_fini(&b);
}

static void elements_added_later_may_be_missing(void **state)
{
    (void)state;
    for_each_struct(check_without_additions, 5);
}

/* What a broker of one node sends: partitions without their replicas. */
static void metadata_of_an_older_broker_has_no_replicas(void **state)
{
    (void)state;
    struct metadata_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct buf b;
    assert_non_null(reply);
    reply->partitions[0].replica_count = 7;
    buf_init(&b, LIMIT);
    pack_array(&b, 8);
    pack_id(&b, &reply->cluster_id);
    pack_array(&b, 1);
    pack_array(&b, 3);
    pack_uint(&b, 1);
    pack_uint(&b, 0);
    pack_str(&b, bytes_of_string("tcp://127.0.0.1:7400"));
    pack_id(&b, &reply->topic_id);
    for (int i = 0; i < 4; i++) {
        pack_uint(&b, 1);
    }
    pack_array(&b, 1);
    pack_array(&b, 2);
    pack_uint(&b, 17);
    pack_uint(&b, 0);
    assert_int_equal(metadata_reply_decode(buf_bytes(&b), reply), FERRY_OK);
    assert_int_equal(reply->partitions[0].group, 17);
    assert_int_equal(reply->partitions[0].replica_count, 0);
    buf_fini(&b);
    mem_free(reply);
}

/* More members than two sets can have, in one of many groups. */
static void a_list_in_a_list_is_bounded_too(void **state)
{
    (void)state;
    struct group_list_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct buf b;
    assert_non_null(reply);
    reply->count = 2;
    reply->items[1].member_count = GROUP_MEMBERS_MAX;
    buf_init(&b, LIMIT);
    group_list_reply_encode(&b, reply);
    assert_int_equal(group_list_reply_decode(buf_bytes(&b), reply), FERRY_OK);
    assert_int_equal(reply->items[1].member_count, GROUP_MEMBERS_MAX);
    size_t members = 1 + GROUP_MEMBERS_MAX * 7; /* Each 7 bytes: six zeroes or falses. */
    assert_int_equal(b.data[b.size - members], 0x90 + GROUP_MEMBERS_MAX);
    b.data[b.size - members] = 0x9f;
    buf_append(&b, b.data + b.size - 7, 7);
    assert_int_equal(group_list_reply_decode(buf_bytes(&b), reply), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
    mem_free(reply);
}

/* A client would look there for the leader. */
static void a_partition_at_an_endpoint_that_is_not_there_is_refused(void **state)
{
    (void)state;
    struct metadata_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct buf b;
    assert_non_null(reply);
    reply->endpoint_count = 1;
    reply->partition_count = 1;
    reply->partitions[0].endpoint = 1;
    buf_init(&b, LIMIT);
    metadata_reply_encode(&b, reply);
    assert_int_equal(metadata_reply_decode(buf_bytes(&b), reply), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
    mem_free(reply);
}

static void the_empty_body_is_an_empty_array(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 16);
    empty_encode(&b);
    assert_int_equal(b.size, 1);
    assert_int_equal(empty_decode(buf_bytes(&b)), FERRY_OK);
    assert_int_equal(empty_decode(bytes_of("\x91\x01", 2)), FERRY_OK);
    assert_int_equal(empty_decode(bytes_of("\x91", 1)), FERRY_ERR_BAD_FRAME);
    assert_int_equal(empty_decode(bytes_of(NULL, 0)), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

static void every_command_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(command_name(COMMAND_PRODUCE), "PRODUCE");
    assert_string_equal(command_name(21), "BROKER_STATUS");
    assert_string_equal(command_name(0), "?");
    assert_string_equal(command_name(34), "WORKER_ID");
    assert_string_equal(command_name(35), "RECEIVE");
    assert_string_equal(command_name(55), "QUOTA_LIST");
    assert_string_equal(command_name(57), "SOURCE_FENCE");
    assert_string_equal(command_name(58), "?");
}

static void names_are_1_to_200_of_the_letters_allowed(void **state)
{
    (void)state;
    static const char *const valid[] = {"a", "Z", "0", "a.b", "orders-2024_v1.x", "9--"};
    static const char *const invalid[] = {"",         ".",     "..",   ".a",   "-a",  "_a",
                                          "a b",      "a/b",   "a\\b", "a\n",  "a*",  "a:b",
                                          "\xc3\xa9", "a\x7f", "a#",   "../a", "a%2f"};
    char text[NAME_MAX_BYTES + 1];
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
        assert_true(name_is_valid(bytes_of_string(valid[i])));
    }
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        assert_false(name_is_valid(bytes_of_string(invalid[i])));
    }
    memset(text, 'a', sizeof(text));
    assert_true(name_is_valid(bytes_of(text, NAME_MAX_BYTES)));
    assert_false(name_is_valid(bytes_of(text, NAME_MAX_BYTES + 1)));
    assert_false(name_is_valid(bytes_of("a\0b", 3)));
    assert_false(name_is_valid(bytes_of("\0", 1)));
    assert_false(name_is_valid(bytes_of(NULL, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_struct_comes_back),
        cmocka_unit_test(every_struct_cut_anywhere_is_refused),
        cmocka_unit_test(a_flipped_bit_is_refused_or_is_another_value),
        cmocka_unit_test(elements_of_a_newer_version_are_ignored),
        cmocka_unit_test(elements_added_later_may_be_missing),
        cmocka_unit_test(an_empty_array_is_none_of_them),
        cmocka_unit_test(more_than_the_maximum_is_refused),
        cmocka_unit_test(a_refusal_is_read_as_an_error_too),
        cmocka_unit_test(an_error_is_read_as_a_refusal_without_a_cursor),
        cmocka_unit_test(metadata_of_an_older_broker_has_no_replicas),
        cmocka_unit_test(a_list_in_a_list_is_bounded_too),
        cmocka_unit_test(a_partition_at_an_endpoint_that_is_not_there_is_refused),
        cmocka_unit_test(the_empty_body_is_an_empty_array),
        cmocka_unit_test(every_command_has_its_name),
        cmocka_unit_test(names_are_1_to_200_of_the_letters_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
