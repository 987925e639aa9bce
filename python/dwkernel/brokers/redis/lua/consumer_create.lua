-- Makes a consumer. KEYS: those of the stream and of the consumer. ARGV: uid, the consumer's uid and name, where
-- it begins (`first`, `last`, `new`, `sequence`, `time`) and a number, then names and values of its settings.
-- Returns 'ok', or 'stream.consumer_exists'. Done again with the same uid it is there already.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local info = KEYS[STREAM_KEYS + 1]
local uid = redis.call('HGET', info, 'uid')
if uid then
  return { uid == ARGV[2] and 'ok' or 'stream.consumer_exists' }
end
local start, value = ARGV[4], tonumber(ARGV[5])
local first = 1
if start == 'last' then
  local newest = redis.call('XREVRANGE', s.messages, '+', '-', 'COUNT', 1)[1]
  first = newest and sequence_of(newest[1]) or s.last + 1
elseif start == 'new' then
  first = s.last + 1
elseif start == 'sequence' then
  first = math.max(1, math.min(value, 9007199254740991))
elseif start == 'time' then
  first = first_since(s, value)
end
local settings = {}
for at = 6, #ARGV do
  settings[#settings + 1] = ARGV[at]
end
redis.call('HSET', info, 'uid', ARGV[2], 'name', ARGV[3], 'cursor', number(first - 1), 'top', 0, 'paused', 0, unpack(settings))
redis.call('ZADD', s.consumers, number(first - 1), ARGV[3])
return { 'ok' }
