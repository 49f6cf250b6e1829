/* The test vectors of the protocol (sdk/wire/vectors): every file is what today's encoders and
 * decoders make of the samples. A change of the wire shows up here as a difference to a file.
 *
 *   protocol_vectors_test                 checks
 *   protocol_vectors_test --write DIR     writes the files anew (review the difference!)
 *   protocol_vectors_test --corpus DIR    writes the seeds of the fuzz targets */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "protocol_samples.h"

#define FILE_MAX_BYTES (1u << 20)
#define SAMPLES        (sizeof(samples) / sizeof(samples[0]))
#define REFUSALS       (sizeof(refusals) / sizeof(refusals[0]))

/* ---- JSON ---- */

static void json_hex(struct buf *out, const char *name, struct bytes bytes)
{
    buf_printf(out, "\"%s\": \"", name);
    for (size_t i = 0; i < bytes.size; i++) {
        buf_printf(out, "%02x", bytes.data[i]);
    }
    buf_printf(out, "\"");
}

static void json_text(struct buf *out, struct bytes text)
{
    buf_printf(out, "\"");
    for (size_t i = 0; i < text.size; i++) {
        const char *escape = text.data[i] == '"' || text.data[i] == '\\' ? "\\" : "";
        buf_printf(out, "%s%c", escape, text.data[i]);
    }
    buf_printf(out, "\"");
}

/* 64-bit numbers are strings: not every language's JSON keeps them whole. */
static void json_value(struct buf *out, const struct layout_row *row, const uint8_t *member)
{
    const char *dot = strrchr(row->name, '.');
    const char *name = dot == NULL ? row->name : dot + 1;
    const struct bytes *run = (const void *)member;
    if (row->kind == LAYOUT_ID || row->kind == LAYOUT_BLOB) {
        json_hex(out, name, row->kind == LAYOUT_ID ? bytes_of(member, 16) : *run);
        return;
    }
    buf_printf(out, "\"%s\": ", name);
    switch (row->kind) {
    case LAYOUT_BOOL:
        buf_printf(out, "%s", *(const bool *)member ? "true" : "false");
        break;
    case LAYOUT_U16:
        buf_printf(out, "%u", get_le16(member));
        break;
    case LAYOUT_U32:
        buf_printf(out, "%" PRIu32, get_le32(member));
        break;
    case LAYOUT_U64:
        buf_printf(out, "\"%" PRIu64 "\"", get_le64(member));
        break;
    case LAYOUT_I64:
        buf_printf(out, "\"%" PRId64 "\"", (int64_t)get_le64(member));
        break;
    default:
        json_text(out, *run);
    }
}

/* Texts and numbers. */
static void json_array(struct buf *out, const struct layout_row *row, const uint8_t *v)
{
    uint32_t count = get_le32(v + row->count_offset);
    buf_printf(out, "\"%s\": [", row->name);
    for (uint32_t i = 0; i < count; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        if (row->kind == LAYOUT_TEXTS) {
            const struct bytes *texts = (const void *)(v + row->offset);
            json_text(out, texts[i]);
        } else {
            buf_printf(out, "%" PRIu32, get_le32(v + row->offset + i * 4));
        }
    }
    buf_printf(out, "]");
}

static void json_plain(struct buf *out, const struct layout_row *row, const uint8_t *v)
{
    if (row->kind == LAYOUT_TEXTS || row->kind == LAYOUT_U32S) {
        json_array(out, row, v);
    } else {
        json_value(out, row, v + row->offset);
    }
}

static void json_inner_list(struct buf *out, const struct layout_row *row, const uint8_t *v)
{
    uint32_t count = get_le32(v + row->count_offset);
    buf_printf(out, "\"%s\": [", row->name);
    for (uint32_t i = 0; i < count; i++) {
        buf_printf(out, "%s{", i > 0 ? ", " : "");
        for (uint32_t k = 0; k < row->item->count; k++) {
            buf_printf(out, "%s", k > 0 ? ", " : "");
            json_plain(out, &row->item->rows[k], v + row->offset + i * row->item->bytes);
        }
        buf_printf(out, "}");
    }
    buf_printf(out, "]");
}

static void json_list(struct buf *out, const struct layout_row *row, const uint8_t *v)
{
    uint32_t count = get_le32(v + row->count_offset);
    buf_printf(out, "\"%s\": [", row->name);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *element = v + row->offset + i * row->item->bytes;
        buf_printf(out, "%s{", i > 0 ? ", " : "");
        for (uint32_t k = 0; k < row->item->count; k++) {
            const struct layout_row *inner = &row->item->rows[k];
            buf_printf(out, "%s", k > 0 ? ", " : "");
            if (inner->kind == LAYOUT_LIST) {
                json_inner_list(out, inner, element);
            } else {
                json_plain(out, inner, element);
            }
        }
        buf_printf(out, "}");
    }
    buf_printf(out, "]");
}

/* The body decoded as the struct it is, field by field. */
static void json_fields(struct buf *out, enum command_struct which, struct bytes body)
{
    if (which == EMPTY) {
        assert_int_equal(empty_decode(body), FERRY_OK);
        buf_printf(out, "     \"fields\": {},\n");
        return;
    }
    const struct layout *layout = &command_layouts[which];
    uint8_t *v = mem_zalloc(1, layout->bytes);
    assert_non_null(v);
    assert_int_equal(layout_decode(body, layout, v), FERRY_OK);
    buf_printf(out, "     \"fields\": {\n");
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct layout_row *row = &layout->rows[i];
        buf_printf(out, "       ");
        if (row->kind == LAYOUT_LIST) {
            json_list(out, row, v);
        } else {
            json_plain(out, row, v);
        }
        buf_printf(out, "%s\n", i + 1 < layout->count ? "," : "");
    }
    buf_printf(out, "     },\n");
    mem_free(v);
}

/* ---- Bytes of the samples ---- */

static void make_batch(struct buf *out, const struct batch_record *records, size_t count,
                       uint64_t producer_id)
{
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, FILE_MAX_BYTES);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(batch_writer_add(&w, &records[i]), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, producer_id, producer_id != 0 ? 2 : 0,
                                         producer_id != 0 ? 300 : 0, &batch),
                     FERRY_OK);
    buf_append_bytes(out, batch);
    batch_writer_fini(&w);
}

static void make_plain(struct buf *out)
{
    make_batch(out, plain_records, 1, 0);
}

static void make_keyed(struct buf *out)
{
    make_batch(out, keyed_records, 1, 0);
}

static void make_delayed(struct buf *out)
{
    make_batch(out, delayed_records, 2, 4711);
}

static void make_mixed(struct buf *out)
{
    make_batch(out, mixed_records, 3, 4711);
}

static void make_entry(struct buf *out, void (*make)(struct buf *), uint32_t skip_count)
{
    static const uint8_t skip_1[4] = {1};
    struct buf batch;
    buf_init(&batch, FILE_MAX_BYTES);
    make(&batch);
    struct fetch_entry entry = {.base_offset = 1000,
                                .append_time_ms = 1700000000500,
                                .skip_count = skip_count,
                                .skips = skip_1,
                                .batch = buf_bytes(&batch)};
    fetch_entry_append(out, &entry);
    buf_fini(&batch);
}

static void make_attachment(struct buf *out, enum attachment attachment)
{
    switch (attachment) {
    case NOTHING:
        break;
    case BATCH:
        make_mixed(out);
        break;
    case PLAIN:
        make_plain(out);
        break;
    case KEYED:
        make_keyed(out);
        break;
    case ENTRIES:
        make_entry(out, make_mixed, 1);
        break;
    case DUPLICATES:
        buf_append_le32(out, 0);
        buf_append_le64(out, 950);
        buf_append_le32(out, 2);
        buf_append_le64(out, 951);
        break;
    case DUES:
        for (uint64_t i = 0; i < 3; i++) {
            buf_append_le64(out, 1700003600000 + i);
        }
        break;
    }
}

static void make_body(struct buf *out, const struct sample *s, size_t attachment_bytes)
{
    if (s->which == EMPTY) {
        empty_encode(out);
    } else if (s->attachment == ENTRIES && s->which == COMMAND_STRUCT_fetch_reply) {
        struct fetch_reply reply = *(const struct fetch_reply *)s->value;
        reply.items[0].data_bytes = (uint32_t)attachment_bytes;
        fetch_reply_encode(out, &reply);
    } else {
        layout_encode(out, &command_layouts[s->which], s->value);
    }
}

static void make_frame(struct buf *out, const struct sample *s)
{
    struct buf attachment;
    buf_init(&attachment, FILE_MAX_BYTES);
    make_attachment(&attachment, s->attachment);
    if (s->is_reply) {
        frame_begin_reply(out, s->command, 1000 + s->command, s->status);
    } else {
        frame_begin_request(out, s->command, 1000 + s->command, 5000);
    }
    make_body(out, s, attachment.size);
    frame_begin_attachment(out);
    buf_append_bytes(out, buf_bytes(&attachment));
    assert_true(frame_end(out));
    buf_fini(&attachment);
}

static void make_good(struct buf *out, const char *decoder)
{
    if (strcmp(decoder, "frame") == 0) {
        make_frame(out, &samples[0]);
    } else if (strcmp(decoder, "batch") == 0) {
        make_mixed(out);
    } else {
        make_entry(out, make_mixed, 1);
    }
}

static void sign(struct buf *b, const char *decoder)
{
    if (strcmp(decoder, "frame") == 0) {
        uint32_t body = get_le32(b->data + 16);
        put_le32(b->data + 28, (uint32_t)checksum_of_two(b->data, 28, b->data + 32, body));
    } else if (strcmp(decoder, "batch") == 0) {
        put_le64(b->data + 8, checksum_of(b->data + 16, b->size - 16));
    } else {
        put_le64(b->data + 24, checksum_of_two(b->data, 24, b->data + 32, 4));
    }
}

static void make_refused(struct buf *out, const struct refusal *r)
{
    make_good(out, r->decoder);
    memcpy(out->data + r->at, &r->value, r->size);
    if (r->sign) {
        sign(out, r->decoder);
    }
    for (int i = r->cut; i < 0; i++) {
        buf_append_u8(out, 0);
    }
    out->size -= r->cut > 0 ? (size_t)r->cut : 0;
}

/* ---- Files ---- */

static void file_of_command(struct buf *out, uint16_t command)
{
    const char *before = "";
    buf_printf(out, "{\"command\": \"%s\",\n \"number\": %u,\n \"frames\": [",
               command_name(command), command);
    for (size_t i = 0; i < SAMPLES; i++) {
        struct buf b;
        struct frame f;
        if (samples[i].command != command) {
            continue;
        }
        buf_init(&b, FILE_MAX_BYTES);
        make_frame(&b, &samples[i]);
        assert_int_equal(frame_parse(buf_bytes(&b), &f, NULL), FERRY_OK);
        buf_printf(out, "%s\n    {\"what\": \"%s\",\n", before, samples[i].what);
        buf_printf(out, "     \"version\": %u, \"kind\": %u, \"status\": %u, ", f.version, f.kind,
                   f.status);
        buf_printf(out, "\"request_id\": \"%" PRIu64 "\", \"timeout_ms\": %" PRIu32 ",\n",
                   f.request_id, f.timeout_ms);
        buf_printf(out, "     \"struct\": \"%s\",\n",
                   samples[i].which == EMPTY ? "empty" : command_layouts[samples[i].which].name);
        json_fields(out, samples[i].which, f.body);
        buf_printf(out, "     ");
        json_hex(out, "body_hex", f.body);
        buf_printf(out, ",\n     ");
        json_hex(out, "attachment_hex", f.attachment);
        buf_printf(out, ",\n     ");
        json_hex(out, "hex", buf_bytes(&b));
        buf_printf(out, "}");
        before = ",";
        buf_fini(&b);
    }
    buf_printf(out, "\n]}\n");
}

static void json_record(struct buf *out, const struct batch_record *r)
{
    buf_printf(out, "       {\"timestamp_ms\": \"%" PRId64 "\", \"has_key\": %s, ", r->timestamp_ms,
               r->has_key ? "true" : "false");
    json_hex(out, "key", r->key);
    buf_printf(out, ",\n        \"headers\": {");
    struct bytes name, value;
    size_t position = 0;
    assert_int_equal(batch_check_headers(r->headers), FERRY_OK);
    for (const char *before = ""; batch_next_header(r->headers, &position, &name, &value);
         before = ", ") {
        buf_printf(out, "%s", before);
        json_text(out, name);
        buf_printf(out, ": ");
        json_text(out, value);
    }
    buf_printf(out, "},\n        ");
    json_hex(out, "payload", r->payload);
    buf_printf(out, ",\n        ");
    json_hex(out, "id", bytes_of(r->id.bytes, sizeof(r->id.bytes)));
    buf_printf(out, ",\n        \"due\": \"%" PRId64 "\", \"priority\": %" PRIu32 "}", r->due,
               r->priority);
}

static void json_batch(struct buf *out, struct bytes batch)
{
    struct batch_reader r;
    struct batch_record record;
    struct batch_header h;
    enum ferry_err err;
    assert_int_equal(batch_check(batch, &h, NULL), FERRY_OK);
    buf_printf(out, "     \"batch_bytes\": %" PRIu32 ", \"checksum\": \"%016" PRIx64 "\", ",
               h.batch_bytes, h.checksum);
    buf_printf(out, "\"flags\": %u, \"count\": %" PRIu32 ",\n", h.flags, h.count);
    buf_printf(out, "     \"producer_id\": \"%" PRIu64 "\", \"first_sequence\": \"%" PRIu64 "\", ",
               h.producer_id, h.first_sequence);
    buf_printf(out, "\"producer_epoch\": %" PRIu32 ",\n", h.producer_epoch);
    buf_printf(out,
               "     \"records_bytes\": %" PRIu32 ", \"base_timestamp_ms\": \"%" PRId64 "\",\n",
               h.records_bytes, h.base_timestamp_ms);
    buf_printf(out, "     \"records\": [\n");
    batch_reader_init(&r, batch);
    for (const char *before = ""; batch_reader_next(&r, &record, &err); before = ",\n") {
        buf_printf(out, "%s", before);
        json_record(out, &record);
    }
    assert_int_equal(err, FERRY_OK);
    buf_printf(out, "],\n     ");
}

static void json_batch_entry(struct buf *out, const char *what, void (*make)(struct buf *))
{
    struct buf b;
    buf_init(&b, FILE_MAX_BYTES);
    make(&b);
    buf_printf(out, "    {\"what\": \"%s\",\n", what);
    json_batch(out, buf_bytes(&b));
    json_hex(out, "hex", buf_bytes(&b));
    buf_printf(out, "}");
    buf_fini(&b);
}

static void file_of_batches(struct buf *out)
{
    buf_printf(out, "{\"batches\": [\n");
    json_batch_entry(out, "one record, nobody's sequence", make_plain);
    buf_printf(out, ",\n");
    json_batch_entry(out, "three records with keys, headers and ids, of a producer", make_mixed);
    buf_printf(out, ",\n");
    json_batch_entry(out, "two delayed records with priorities", make_delayed);
    buf_printf(out, "\n]}\n");
}

/* Of each record; null where it is skipped. */
static void json_offsets(struct buf *out, const struct fetch_entry *entry, uint32_t count)
{
    uint32_t skips = 0;
    for (uint32_t i = 0; i < count; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        if (skips < entry->skip_count && fetch_entry_skip(entry, skips) == i) {
            buf_printf(out, "null");
            skips++;
        } else {
            buf_printf(out, "\"%" PRId64 "\"", entry->base_offset + (int64_t)(i - skips));
        }
    }
}

static void json_fetch_entry(struct buf *out, const char *what, uint32_t skip_count)
{
    struct buf b;
    struct fetch_entry entry;
    struct batch_header h;
    buf_init(&b, FILE_MAX_BYTES);
    make_entry(&b, make_mixed, skip_count);
    struct bytes rest = buf_bytes(&b);
    assert_int_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_OK);
    assert_int_equal(rest.size, 0);
    buf_printf(out, "    {\"what\": \"%s\",\n", what);
    buf_printf(out, "     \"base_offset\": \"%" PRId64 "\", \"append_time_ms\": \"%" PRId64 "\",\n",
               entry.base_offset, entry.append_time_ms);
    buf_printf(out, "     \"batch_bytes\": %zu, \"skips\": [", entry.batch.size);
    for (uint32_t i = 0; i < entry.skip_count; i++) {
        buf_printf(out, "%s%" PRIu32, i > 0 ? ", " : "", fetch_entry_skip(&entry, i));
    }
    buf_printf(out, "], \"offsets\": [");
    json_offsets(out, &entry, h.count);
    buf_printf(out, "],\n     ");
    json_hex(out, "hex", buf_bytes(&b));
    buf_printf(out, "}");
    buf_fini(&b);
}

static void file_of_fetch_entries(struct buf *out)
{
    buf_printf(out, "{\"fetch_entries\": [\n");
    json_fetch_entry(out, "three records", 0);
    buf_printf(out, ",\n");
    json_fetch_entry(out, "three records, the second dropped by its id", 1);
    buf_printf(out, "\n]}\n");
}

static enum ferry_err refusal_of(const char *decoder, struct bytes bytes)
{
    struct frame f;
    struct batch_header h;
    struct fetch_entry entry;
    if (strcmp(decoder, "frame") == 0) {
        return frame_parse(bytes, &f, NULL);
    }
    if (strcmp(decoder, "batch") == 0) {
        return batch_check(bytes, &h, NULL);
    }
    return fetch_entry_next(&bytes, &entry, &h, NULL);
}

static void file_of_refusals(struct buf *out)
{
    buf_printf(out, "{\"refused\": [");
    for (size_t i = 0; i < REFUSALS; i++) {
        struct buf b;
        buf_init(&b, FILE_MAX_BYTES);
        make_refused(&b, &refusals[i]);
        enum ferry_err err = refusal_of(refusals[i].decoder, buf_bytes(&b));
        assert_int_not_equal(err, FERRY_OK);
        buf_printf(out, "%s\n    {\"what\": \"%s\", \"decoder\": \"%s\", ", i > 0 ? "," : "",
                   refusals[i].what, refusals[i].decoder);
        buf_printf(out, "\"error\": \"%s\",\n     ", ferry_err_name(err));
        json_hex(out, "hex", buf_bytes(&b));
        buf_printf(out, "}");
        buf_fini(&b);
    }
    buf_printf(out, "\n]}\n");
}

typedef void with_file(const char *folder, const char *name, struct bytes content);

static void for_each_file(const char *folder, with_file *use)
{
    struct buf out;
    buf_init(&out, FILE_MAX_BYTES);
    static const uint16_t commands[] = {
#define NUMBER(name, number) number,
        COMMAND_MAP(NUMBER)
#undef NUMBER
    };
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        buf_clear(&out);
        file_of_command(&out, commands[i]);
        assert_true(buf_ok(&out));
        use(folder, command_name(commands[i]), buf_bytes(&out));
    }
    static const struct {
        const char *name;
        void (*fill)(struct buf *out);
    } files[] = {{"batches", file_of_batches},
                 {"fetch_entries", file_of_fetch_entries},
                 {"refused", file_of_refusals}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        buf_clear(&out);
        files[i].fill(&out);
        assert_true(buf_ok(&out));
        use(folder, files[i].name, buf_bytes(&out));
    }
    buf_fini(&out);
}

/* ---- Checking, and writing ---- */

static FILE *open_in(const char *folder, const char *name, const char *suffix, const char *mode)
{
    char path[1024];
    (void)snprintf(path, sizeof(path), "%s/%s%s", folder, name, suffix);
    FILE *file = fopen(path, mode);
    if (file == NULL) {
        fail_msg("%s cannot be opened", path);
    }
    return file;
}

static void check_file(const char *folder, const char *name, struct bytes expected)
{
    uint8_t *content = mem_alloc(FILE_MAX_BYTES);
    assert_non_null(content);
    FILE *file = open_in(folder, name, ".json", "rb");
    size_t size = fread(content, 1, FILE_MAX_BYTES, file);
    (void)fclose(file);
    if (!bytes_equal(bytes_of(content, size), expected)) {
        fail_msg("%s/%s.json is not what the code makes now: has the wire changed? If it was meant "
                 "to, write it anew with --write",
                 folder, name);
    }
    mem_free(content);
}

static void write_bytes(const char *folder, const char *name, const char *suffix,
                        struct bytes content)
{
    FILE *file = open_in(folder, name, suffix, "wb");
    assert_int_equal(fwrite(content.data, 1, content.size, file), content.size);
    assert_int_equal(fclose(file), 0);
}

static void write_file(const char *folder, const char *name, struct bytes content)
{
    write_bytes(folder, name, ".json", content);
}

/* Both directions at once: the bytes in a file are what the encoders make of the samples, and its
 * fields are what the decoders make of the bytes. */
static void the_vectors_are_what_the_code_makes(void **state)
{
    (void)state;
    char folder[900];
    const char *source = getenv("FERRY_SOURCE");
    (void)snprintf(folder, sizeof(folder), "%s/sdk/wire/vectors", source != NULL ? source : ".");
    for_each_file(folder, check_file);
}

static void what_is_decoded_is_encoded_to_the_same_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        struct buf b, again;
        struct frame f;
        if (samples[i].which == EMPTY) {
            continue;
        }
        const struct layout *layout = &command_layouts[samples[i].which];
        void *v = mem_zalloc(1, layout->bytes);
        assert_non_null(v);
        buf_init(&b, FILE_MAX_BYTES);
        buf_init(&again, FILE_MAX_BYTES);
        make_frame(&b, &samples[i]);
        assert_int_equal(frame_parse(buf_bytes(&b), &f, NULL), FERRY_OK);
        assert_int_equal(layout_decode(f.body, layout, v), FERRY_OK);
        layout_encode(&again, layout, v);
        assert_true(bytes_equal(f.body, buf_bytes(&again)));
        buf_fini(&b);
        buf_fini(&again);
        mem_free(v);
    }
}

static void every_struct_has_a_sample(void **state)
{
    (void)state;
    for (size_t which = 0; which < COMMAND_STRUCTS; which++) {
        bool found = false;
        for (size_t i = 0; i < SAMPLES; i++) {
            found = found || (size_t)samples[i].which == which;
        }
        if (!found) {
            fail_msg("%s has no sample", command_layouts[which].name);
        }
    }
}

static void write_corpus(const char *folder)
{
    struct buf b;
    char name[64];
    buf_init(&b, FILE_MAX_BYTES);
    for (size_t i = 0; i < SAMPLES; i++) {
        buf_clear(&b);
        make_frame(&b, &samples[i]);
        (void)snprintf(name, sizeof(name), "frame/%02zu", i);
        write_bytes(folder, name, "", buf_bytes(&b));
    }
    for (size_t i = 0; i < SAMPLES; i += 4) {
        buf_clear(&b);
        make_body(&b, &samples[i], 0);
        (void)snprintf(name, sizeof(name), "unpack/%02zu", i);
        write_bytes(folder, name, "", buf_bytes(&b));
    }
    buf_clear(&b);
    make_plain(&b);
    write_bytes(folder, "batch/plain", "", buf_bytes(&b));
    buf_clear(&b);
    make_mixed(&b);
    write_bytes(folder, "batch/mixed", "", buf_bytes(&b));
    buf_clear(&b);
    make_delayed(&b);
    write_bytes(folder, "batch/delayed", "", buf_bytes(&b));
    buf_clear(&b);
    make_entry(&b, make_mixed, 1);
    make_entry(&b, make_plain, 0);
    write_bytes(folder, "fetch_entry/two", "", buf_bytes(&b));
    write_bytes(folder, "headers/two", "", mixed_records[1].headers);
    buf_fini(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_are_what_the_code_makes),
        cmocka_unit_test(what_is_decoded_is_encoded_to_the_same_bytes),
        cmocka_unit_test(every_struct_has_a_sample),
    };
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        for_each_file(argv[2], write_file);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--corpus") == 0) {
        write_corpus(argv[2]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
