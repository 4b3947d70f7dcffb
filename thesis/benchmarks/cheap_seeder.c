/* A BitTorrent seeder that costs as little as a seeder can: sendfile() out of the page cache.
 *
 * It exists so that a benchmark of leechers is not a benchmark of their seeder. One file, one thread per
 * connection; no extensions are offered (the reserved bytes are zero), every peer is unchoked at once, any info
 * hash is served. Whatever is not a request is ignored; a connection that breaks the protocol is closed.
 *
 * usage: cheap_seeder FILE PIECE_LENGTH ADDRESS PORT
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HANDSHAKE = 68,
    UNCHOKE = 1,
    BITFIELD = 5,
    REQUEST = 6,
    PIECE = 7,
    MAX_BLOCK = 128 << 10,  /* bytes; what most clients accept */
    MAX_MESSAGE = 1 << 20,  /* bytes; room for a bitfield of 8 million pieces */
    BACKLOG = 128,
};

static int file;
static uint64_t file_size, piece_length;
static uint8_t *greeting; /* bitfield and unchoke, the same for everybody */
static size_t greeting_size;

static uint32_t get32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, 4);
    return ntohl(value);
}

static void put32(uint8_t *p, uint32_t value) {
    value = htonl(value);
    memcpy(p, &value, 4);
}

static void make_greeting(void) {
    uint64_t pieces = (file_size + piece_length - 1) / piece_length;
    size_t bytes = (pieces + 7) / 8;
    greeting_size = 5 + bytes + 5;
    greeting = calloc(1, greeting_size);
    if (!greeting) exit(1);
    put32(greeting, 1 + bytes);
    greeting[4] = BITFIELD;
    for (uint64_t i = 0; i < pieces; i++) greeting[5 + i / 8] |= 0x80 >> (i % 8);
    put32(greeting + 5 + bytes, 1);
    greeting[5 + bytes + 4] = UNCHOKE;
}

static int send_all(int peer, const uint8_t *data, size_t size, int flags) {
    while (size) {
        ssize_t sent = send(peer, data, size, flags);
        if (sent <= 0) return 0;
        data += sent;
        size -= sent;
    }
    return 1;
}

/* Answer one request (12 bytes: index, begin, length); 0 when it is not to be answered. */
static int send_block(int peer, const uint8_t *request) {
    uint64_t index = get32(request), begin = get32(request + 4), length = get32(request + 8);
    if (!length || length > MAX_BLOCK || begin + length > piece_length) return 0;
    off_t offset = (off_t)(index * piece_length + begin);
    if ((uint64_t)offset + length > file_size) return 0;
    uint8_t header[13];
    put32(header, 9 + length);
    header[4] = PIECE;
    memcpy(header + 5, request, 8);
    if (!send_all(peer, header, sizeof header, MSG_MORE)) return 0;
    while (length) {
        ssize_t sent = sendfile(peer, file, &offset, length);
        if (sent <= 0) return 0;
        length -= sent;
    }
    return 1;
}

/* Handle every whole message in data; the number of bytes used, or -1 when the peer is to be dropped. */
static ssize_t handle_messages(int peer, const uint8_t *data, size_t size) {
    size_t used = 0;
    while (size - used >= 4) {
        const uint8_t *message = data + used;
        uint32_t length = get32(message);
        if (length > MAX_MESSAGE) return -1;
        if (size - used < 4 + (size_t)length) break;
        used += 4 + (size_t)length;
        if (length == 13 && message[4] == REQUEST && !send_block(peer, message + 5)) return -1;
    }
    return (ssize_t)used;
}

static int shake_hands(int peer) {
    uint8_t handshake[HANDSHAKE];
    if (recv(peer, handshake, HANDSHAKE, MSG_WAITALL) != HANDSHAKE) return 0;
    if (memcmp(handshake, "\x13" "BitTorrent protocol", 20)) return 0;
    memset(handshake + 20, 0, 8);
    memcpy(handshake + 48, "-CS0001-cheap-seeder", 20);
    return send_all(peer, handshake, HANDSHAKE, MSG_MORE) && send_all(peer, greeting, greeting_size, 0);
}

static void *serve(void *argument) {
    int peer = (int)(intptr_t)argument;
    size_t have = 0;
    uint8_t *buffer = malloc(4 + MAX_MESSAGE);
    if (buffer && shake_hands(peer)) {
        for (;;) {
            ssize_t got = recv(peer, buffer + have, 4 + MAX_MESSAGE - have, 0);
            if (got <= 0) break;
            have += got;
            ssize_t used = handle_messages(peer, buffer, have);
            if (used < 0) break;
            have -= used;
            memmove(buffer, buffer + used, have);
        }
    }
    free(buffer);
    close(peer);
    return NULL;
}

static int listen_on(const char *address, int port) {
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, address, &local.sin_addr) != 1) return -1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&local, sizeof local) || listen(listener, BACKLOG)) return -1;
    return listener;
}

int main(int argc, char **argv) {
    struct stat facts;
    if (argc != 5) return fprintf(stderr, "usage: cheap_seeder FILE PIECE_LENGTH ADDRESS PORT\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    file = open(argv[1], O_RDONLY);
    piece_length = strtoull(argv[2], NULL, 10);
    if (file < 0 || fstat(file, &facts) || !piece_length) return perror(argv[1]), 1;
    file_size = facts.st_size;
    make_greeting();
    int listener = listen_on(argv[3], atoi(argv[4]));
    if (listener < 0) return perror("listen"), 1;
    for (;;) {
        pthread_t thread;
        int one = 1, peer = accept(listener, NULL, NULL);
        if (peer < 0) continue;
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)peer)) close(peer);
        else pthread_detach(thread);
    }
}
