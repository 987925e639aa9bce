-- Deletes a consumer and its dead letters. KEYS: those of the stream and of the consumer. ARGV: uid, and the
-- consumer's name.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
if redis.call('ZREM', s.consumers, ARGV[2]) == 0 then
  return NO_CONSUMER
end
for at = STREAM_KEYS + 1, #KEYS do
  redis.call('UNLINK', KEYS[at])
end
release(s)
ring(s)
return { 'ok' }
