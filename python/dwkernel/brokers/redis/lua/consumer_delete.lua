-- Deletes a consumer and its dead letters. KEYS: those of the stream and of the consumer. ARGV: uid, lane,
-- call, and the consumer's name.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local before = recall(s, ARGV[2], ARGV[3])
if before then
  return before
end
if redis.call('ZREM', s.consumers, ARGV[4]) == 0 then
  return NO_CONSUMER
end
for at = STREAM_KEYS + 1, #KEYS do
  redis.call('UNLINK', KEYS[at])
end
release(s)
ring(s)
return remember(s, ARGV[2], ARGV[3], { 'ok' })
