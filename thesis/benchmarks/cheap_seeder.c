/* A BitTorrent seeder that costs as little as a seeder can: sendfile() out of the page cache.
 *
 * It exists so that a benchmark of leechers is not a benchmark of their seeder. One file, one thread per
 * connection, any number of addresses, each of them a seeder to its leecher; no extensions are offered (the
 * reserved bytes are zero), whoever is interested is unchoked, any info hash is served. Whatever else comes is
 * ignored; a connection that breaks the protocol is closed. With a RATE (bytes per second, 0 for none) the kernel
 * spaces each connection's packets so that it goes no faster.
 *
 * usage: cheap_seeder FILE PIECE_LENGTH RATE ADDRESS:PORT...
 */
#define _GNU_SOURCE
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
    INTERESTED = 2,
    BITFIELD = 5,
    REQUEST = 6,
    PIECE = 7,
    MAX_BLOCK = 128 << 10,  /* bytes; what most clients accept */
    MAX_MESSAGE = 1 << 20,  /* bytes; room for a bitfield of 8 million pieces */
    BACKLOG = 128,
};

static int file;
static uint64_t file_size, piece_length;
static unsigned rate; /* bytes per second of one connection */
static uint8_t *greeting; /* the bitfield, the same for everybody */
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
    greeting_size = 5 + bytes;
    greeting = calloc(1, greeting_size);
    if (!greeting) exit(1);
    put32(greeting, 1 + bytes);
    greeting[4] = BITFIELD;
    for (uint64_t i = 0; i < pieces; i++) greeting[5 + i / 8] |= 0x80 >> (i % 8);
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

static const uint8_t unchoke[5] = {0, 0, 0, 1, UNCHOKE};

/* Handle every whole message in data; the number of bytes used, or -1 when the peer is to be dropped. */
static ssize_t handle_messages(int peer, const uint8_t *data, size_t size) {
    size_t used = 0;
    while (size - used >= 4) {
        const uint8_t *message = data + used;
        uint32_t length = get32(message);
        if (length > MAX_MESSAGE) return -1;
        if (size - used < 4 + (size_t)length) break;
        used += 4 + (size_t)length;
        if (length == 1 && message[4] == INTERESTED && !send_all(peer, unchoke, sizeof unchoke, 0)) return -1;
        if (length == 13 && message[4] == REQUEST && !send_block(peer, message + 5)) return -1;
    }
    return (ssize_t)used;
}

/* The peer id ends with the port, so that each address is another peer. */
static int shake_hands(int peer) {
    struct sockaddr_in local;
    socklen_t length = sizeof local;
    uint8_t handshake[HANDSHAKE];
    char id[21];
    if (getsockname(peer, (struct sockaddr *)&local, &length)) return 0;
    snprintf(id, sizeof id, "-CS0001-cheap-s%05d", ntohs(local.sin_port));
    if (recv(peer, handshake, HANDSHAKE, MSG_WAITALL) != HANDSHAKE) return 0;
    if (memcmp(handshake, "\x13" "BitTorrent protocol", 20)) return 0;
    memset(handshake + 20, 0, 8);
    memcpy(handshake + 48, id, 20);
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

static int listen_on(const char *address) {
    char host[64] = {0};
    struct sockaddr_in local = {.sin_family = AF_INET};
    int one = 1, port = 0, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (sscanf(address, "%63[^:]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &local.sin_addr) != 1) return -1;
    local.sin_port = htons(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&local, sizeof local) || listen(listener, BACKLOG)) return -1;
    return listener;
}

static void *accept_all(void *argument) {
    for (;;) {
        pthread_t thread;
        int one = 1, peer = accept((int)(intptr_t)argument, NULL, NULL);
        if (peer < 0) continue;
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (rate) setsockopt(peer, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate);
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)peer)) close(peer);
        else pthread_detach(thread);
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct stat facts;
    pthread_t thread;
    if (argc < 5) return fprintf(stderr, "usage: cheap_seeder FILE PIECE_LENGTH RATE ADDRESS:PORT...\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    file = open(argv[1], O_RDONLY);
    piece_length = strtoull(argv[2], NULL, 10);
    rate = strtoul(argv[3], NULL, 10);
    if (file < 0 || fstat(file, &facts) || !piece_length) return perror(argv[1]), 1;
    file_size = facts.st_size;
    make_greeting();
    for (int i = 4; i < argc; i++) {
        int listener = listen_on(argv[i]);
        if (listener < 0) return perror(argv[i]), 1;
        if (pthread_create(&thread, NULL, accept_all, (void *)(intptr_t)listener)) return perror("thread"), 1;
    }
    pthread_join(thread, NULL);
}
