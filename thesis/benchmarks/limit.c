/* The physical limit: the least a BitTorrent leecher on this machine must do, and nothing else.
 *
 * It asks a seeder for every block in order, receives the blocks straight into a piece's buffer (one recvmsg for a
 * whole piece: no copy of its own), takes the SHA-1, compares it and writes the piece. With THREADS > 1 each thread
 * has its own connection and takes every THREADS-th piece. Not a client: the seeder must have every piece and send
 * only what was asked, in that order, as cheap_seeder does; anything else ends the program with status 1.
 *
 * With a MARK other than "-" it creates this file at the end and stays, so that others can look at what it has cost.
 *
 * usage: limit OUTPUT SIZE PIECE_LENGTH HASHES_FILE INFO_HASH_HEX THREADS MARK ADDRESS:PORT...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BLOCK = 16 << 10,
    HEADER = 13,          /* length, id, index, begin */
    REQUEST_SIZE = 17,
    WINDOW = 4 << 20,     /* bytes asked for ahead: twice the loopback's socket buffers */
    BLOCKS_AT_ONCE = 256, /* blocks in one recvmsg; two iovecs each, IOV_MAX is 1024 */
    MAX_THREADS = 64,
    MAX_GREETING = 1 << 20, /* bytes in a message before the unchoke: the bitfield */
};

static int output;
static uint64_t size, piece_length, pieces;
static uint8_t *hashes, info_hash[20];
static int threads, addresses;
static char **address_list;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

#ifdef HAVE_CRYPTO
#include <openssl/evp.h>
static void sha1(const uint8_t *data, size_t length, uint8_t *digest) {
    EVP_Digest(data, length, digest, NULL, EVP_sha1(), NULL);
}
#else
static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_chunk(uint32_t *state, const uint8_t *chunk) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++) {
        memcpy(w + i, chunk + 4 * i, 4);
        w[i] = ntohl(w[i]);
    }
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                              : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + f + e + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void sha1(const uint8_t *data, size_t length, uint8_t *digest) {
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t tail[128] = {0};
    size_t whole = length / 64 * 64, rest = length - whole, end = rest < 56 ? 64 : 128;
    for (size_t i = 0; i < whole; i += 64) sha1_chunk(state, data + i);
    memcpy(tail, data + whole, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++) tail[end - 1 - i] = (uint8_t)((uint64_t)length * 8 >> (8 * i));
    for (size_t i = 0; i < end; i += 64) sha1_chunk(state, tail + i);
    for (int i = 0; i < 5; i++) {
        uint32_t word = htonl(state[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}
#endif

static uint32_t get32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, 4);
    return ntohl(value);
}

static void put32(uint8_t *p, uint32_t value) {
    value = htonl(value);
    memcpy(p, &value, 4);
}

static uint64_t length_of(uint64_t piece) {
    uint64_t left = size - piece * piece_length;
    return left < piece_length ? left : piece_length;
}

static void send_all(int peer, const uint8_t *data, size_t length) {
    while (length) {
        ssize_t sent = send(peer, data, length, MSG_NOSIGNAL);
        if (sent <= 0) fail("send failed");
        data += sent;
        length -= sent;
    }
}

static void receive_exactly(int peer, uint8_t *data, size_t length) {
    if (recv(peer, data, length, MSG_WAITALL) != (ssize_t)length) fail("the seeder left");
}

static int dial(const char *address) {
    char host[64] = {0};
    int port = 0, one = 1, peer = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in remote = {.sin_family = AF_INET};
    if (sscanf(address, "%63[^:]:%d", host, &port) != 2) fail("not ADDRESS:PORT: %s", address);
    remote.sin_port = htons(port);
    if (inet_pton(AF_INET, host, &remote.sin_addr) != 1) fail("not an address: %s", host);
    if (connect(peer, (struct sockaddr *)&remote, sizeof remote)) fail("cannot connect to %s", address);
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return peer;
}

/* Shake hands, say interested (id 2), and read on until the seeder unchokes (id 1). */
static void open_session(int peer) {
    uint8_t handshake[68] = "\x13" "BitTorrent protocol", interested[5] = {0, 0, 0, 1, 2}, head[5];
    memcpy(handshake + 28, info_hash, 20);
    memcpy(handshake + 48, "-LM0001-the-limit-00", 20);
    send_all(peer, handshake, sizeof handshake);
    send_all(peer, interested, sizeof interested);
    receive_exactly(peer, handshake, sizeof handshake);
    do {
        receive_exactly(peer, head, sizeof head);
        uint32_t rest = get32(head) - 1;
        uint8_t *ignored = rest < MAX_GREETING ? malloc(rest + 1) : NULL;
        if (!ignored) fail("a message of %u bytes before the unchoke", rest);
        if (rest) receive_exactly(peer, ignored, rest);
        free(ignored);
    } while (head[4] != 1);
}

static size_t put_requests(uint8_t *out, uint64_t piece) {
    uint8_t *at = out;
    for (uint64_t begin = 0; begin < length_of(piece); begin += BLOCK, at += REQUEST_SIZE) {
        uint64_t left = length_of(piece) - begin;
        put32(at, 13);
        at[4] = 6;
        put32(at + 5, piece);
        put32(at + 9, begin);
        put32(at + 13, left < BLOCK ? left : BLOCK);
    }
    return at - out;
}

/* Receive up to BLOCKS_AT_ONCE blocks of the piece from begin on; where the next block begins. */
static uint64_t receive_blocks(int peer, uint64_t piece, uint64_t begin, uint8_t *buffer) {
    static _Thread_local uint8_t headers[BLOCKS_AT_ONCE][HEADER];
    struct iovec parts[2 * BLOCKS_AT_ONCE];
    size_t blocks = 0, total = 0;
    uint64_t end = begin;
    for (; blocks < BLOCKS_AT_ONCE && end < length_of(piece); blocks++) {
        size_t length = length_of(piece) - end < BLOCK ? length_of(piece) - end : BLOCK;
        parts[2 * blocks] = (struct iovec){headers[blocks], HEADER};
        parts[2 * blocks + 1] = (struct iovec){buffer + end, length};
        end += length;
        total += HEADER + length;
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2 * blocks};
    if (recvmsg(peer, &message, MSG_WAITALL) != (ssize_t)total) fail("the seeder left");
    for (size_t i = 0; i < blocks; i++) {
        uint8_t *header = headers[i];
        if (get32(header) != 9 + parts[2 * i + 1].iov_len || header[4] != 7 || get32(header + 5) != piece ||
            get32(header + 9) != begin + i * BLOCK)
            fail("the seeder sent something else than the block asked for");
    }
    return end;
}

static void finish_piece(uint64_t piece, const uint8_t *data) {
    uint8_t digest[20];
    size_t length = length_of(piece);
    sha1(data, length, digest);
    if (memcmp(digest, hashes + 20 * piece, 20)) fail("piece %lu is corrupt", (unsigned long)piece);
    if (pwrite(output, data, length, (off_t)(piece * piece_length)) != (ssize_t)length) fail("write failed");
}

static void *leech(void *argument) {
    uint64_t first = (uint64_t)(intptr_t)argument, asked = first;
    uint64_t ahead = WINDOW / piece_length < 2 ? 2 : WINDOW / piece_length; /* pieces */
    uint8_t *buffer = malloc(piece_length);
    uint8_t *requests = malloc((ahead + 1) * (piece_length / BLOCK + 1) * REQUEST_SIZE);
    int peer = dial(address_list[first % addresses]);
    open_session(peer);
    for (uint64_t piece = first; piece < pieces; piece += threads) {
        if (asked < pieces && asked - piece <= ahead * threads / 2) {
            size_t bytes = 0;
            for (; asked < pieces && asked - piece < ahead * threads; asked += threads)
                bytes += put_requests(requests + bytes, asked);
            send_all(peer, requests, bytes);
        }
        for (uint64_t begin = 0; begin < length_of(piece);) begin = receive_blocks(peer, piece, begin, buffer);
        finish_piece(piece, buffer);
    }
    close(peer);
    free(requests);
    free(buffer);
    return NULL;
}

static void read_arguments(int argc, char **argv) {
    if (argc < 9) fail("usage: limit OUTPUT SIZE PIECE_LENGTH HASHES_FILE INFO_HASH_HEX THREADS MARK ADDRESS:PORT...");
    size = strtoull(argv[2], NULL, 10);
    piece_length = strtoull(argv[3], NULL, 10);
    threads = atoi(argv[6]);
    if (!size || !piece_length || threads < 1 || threads > MAX_THREADS) fail("bad size, piece length or threads");
    pieces = (size + piece_length - 1) / piece_length;
    hashes = malloc(20 * pieces);
    FILE *hash_file = fopen(argv[4], "rb");
    if (!hash_file || fread(hashes, 20, pieces, hash_file) != pieces) fail("cannot read %s", argv[4]);
    fclose(hash_file);
    for (int i = 0; i < 20; i++)
        if (sscanf(argv[5] + 2 * i, "%2hhx", info_hash + i) != 1) fail("bad info hash");
    output = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (output < 0) fail("cannot write %s", argv[1]);
    address_list = argv + 8;
    addresses = argc - 8;
}

int main(int argc, char **argv) {
    pthread_t workers[MAX_THREADS];
    read_arguments(argc, argv);
    for (int i = 1; i < threads; i++)
        if (pthread_create(workers + i, NULL, leech, (void *)(intptr_t)i)) fail("no thread");
    leech((void *)0);
    for (int i = 1; i < threads; i++) pthread_join(workers[i], NULL);
    if (strcmp(argv[7], "-")) {
        if (creat(argv[7], 0644) < 0) fail("cannot create %s", argv[7]);
        pause();
    }
    return 0;
}
