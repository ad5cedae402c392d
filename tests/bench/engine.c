/* engine: a stand-in for a language-model engine that costs next to nothing, so that a run measures the proxy.
 *
 *   engine PORT
 *
 * GET anything: a list of one model, in a shape that every engine's probe understands.
 * POST: one chat completion of about 600 bytes. With "stream":true instead a chunked event stream as its body asks:
 *   "chunks":N    how many pieces of content (each with the nanosecond of its sending between two @ signs)
 *   "every_us":T  microseconds between two of them
 *   "held":1      stay silent after the last one and never finish
 * One thread, epoll, keep-alive; the next request on a connection is read when its answer is finished. */
#include "wire.h"

#define IN_BYTES_MAX 16384

struct connection {
  int fd;
  size_t have;
  int is_streaming, is_held;
  long sent, chunks;
  int64_t every_ns, due_ns;
  struct connection *next, **link; /* among the streams that still send */
  char in[IN_BYTES_MAX + 1];
};

static int poller;
static struct connection *sending;

static void enlist(struct connection *one) {
  one->next = sending;
  one->link = &sending;
  if (sending) sending->link = &one->next;
  sending = one;
}

static void delist(struct connection *one) {
  if (!one->link) return;
  *one->link = one->next;
  if (one->next) one->next->link = one->link;
  one->link = NULL;
}

static void drop(struct connection *one) {
  delist(one);
  close(one->fd);
  free(one);
}

static long number(const char *text, const char *key, long otherwise) {
  const char *found = strstr(text, key);
  return found ? atol(found + strlen(key)) : otherwise;
}

static int send_json(int fd, const char *json) {
  char out[2048];
  int length = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        strlen(json), json);
  return send_all(fd, out, length);
}

static int send_piece(struct connection *one) {
  char event[256], out[300];
  int length = snprintf(event, sizeof event,
                        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\",\"choices\":"
                        "[{\"index\":0,\"delta\":{\"content\":\"w%ld @%lld@ \"},\"finish_reason\":null}]}\n\n",
                        one->sent++, (long long)now_ns());
  int whole = snprintf(out, sizeof out, "%x\r\n%s\r\n", length, event);
  return send_all(one->fd, out, whole);
}

static int send_ending(struct connection *one) {
  static const char finish[] =
      "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\",\"choices\":"
      "[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
  char out[400];
  int length = snprintf(out, sizeof out, "%zx\r\n%s\r\n0\r\n\r\n", sizeof finish - 1, finish);
  delist(one);
  if (one->is_held) return 0;
  one->is_streaming = 0;
  return send_all(one->fd, out, length);
}

static int begin_stream(struct connection *one, const char *body) {
  static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  one->is_streaming = 1;
  one->is_held = number(body, "\"held\":", 0);
  one->chunks = number(body, "\"chunks\":", 100);
  one->every_ns = number(body, "\"every_us\":", 0) * 1000;
  one->sent = 0;
  /* Streams that all began at once must not all send at once: each starts somewhere in its first interval. */
  one->due_ns = now_ns() + (int64_t)(rand() / (RAND_MAX + 1.0) * one->every_ns);
  enlist(one);
  return send_all(one->fd, head, sizeof head - 1);
}

static int answer(struct connection *one) {
  static const char list[] =
      "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"}]}";
  char completion[1024];
  while (one->have && !one->is_streaming) {
    size_t length = message_bytes(one->in, one->have);
    if (!length) return one->have == IN_BYTES_MAX ? -1 : 0;
    char after = one->in[length];
    one->in[length] = 0; /* what is searched is this message only */
    int bad;
    if (strncmp(one->in, "POST", 4)) {
      bad = send_json(one->fd, list);
    } else if (strstr(one->in, "\"stream\":true")) {
      bad = begin_stream(one, strstr(one->in, "\r\n\r\n"));
    } else {
      snprintf(completion, sizeof completion,
               "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"bench\",\"choices\":[{\"index\":0,"
               "\"message\":{\"role\":\"assistant\",\"content\":\"%0400d\"},\"finish_reason\":\"stop\"}],\"usage\":"
               "{\"prompt_tokens\":10,\"completion_tokens\":100,\"total_tokens\":110}}", 1);
      bad = send_json(one->fd, completion);
    }
    one->in[length] = after;
    memmove(one->in, one->in + length, one->have - length + 1);
    one->have -= length;
    if (bad) return -1;
  }
  return 0;
}

static void send_what_is_due(void) {
  int64_t now = now_ns();
  for (struct connection *one = sending, *next; one; one = next) {
    next = one->next;
    int bad = 0;
    while (!bad && one->sent < one->chunks && one->due_ns <= now) {
      bad = send_piece(one);
      one->due_ns += one->every_ns;
    }
    if (!bad && one->sent >= one->chunks) bad = send_ending(one) || answer(one);
    if (bad) drop(one);
  }
}

int main(int count, char **words) {
  if (count != 2) return fprintf(stderr, "usage: engine PORT\n"), 2;
  raise_descriptor_limit();
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in address = loopback(atoi(words[1]));
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) fail("engine");
  poller = epoll_create1(0);
  watch(poller, listener, NULL);
  struct epoll_event events[EVENTS_MAX];
  for (;;) {
    int found = epoll_wait(poller, events, EVENTS_MAX, sending ? 1 : -1);
    for (int i = 0; i < found; i++) {
      struct connection *one = events[i].data.ptr;
      if (!one) {
        for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
          send_at_once(fd);
          one = calloc(1, sizeof *one);
          if (!one) fail("calloc");
          one->fd = fd;
          watch(poller, fd, one);
        }
        continue;
      }
      ssize_t got = recv(one->fd, one->in + one->have, IN_BYTES_MAX - one->have, 0);
      if (got < 0 && errno == EAGAIN) continue;
      if (got > 0) one->in[one->have += got] = 0;
      if (got <= 0 || answer(one)) drop(one);
    }
    send_what_is_due();
  }
}
