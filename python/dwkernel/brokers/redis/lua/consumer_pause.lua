-- Pauses a consumer or lets it go on. KEYS: those of the stream and of the consumer. ARGV: uid, the consumer's
-- uid, 1 or 0.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local c = consumer_at(STREAM_KEYS, ARGV[2])
if not c then
  return NO_CONSUMER
end
go_on(s)
redis.call('HSET', c.info, 'paused', ARGV[3])
ring(s)
return { 'ok' }
