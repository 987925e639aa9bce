-- Reads dead letters in the order of their messages. KEYS: those of the stream and of the consumer. ARGV: uid,
-- the consumer's uid, the number behind which to begin, how many at most. Returns 'ok' and their fields.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local c = consumer_at(STREAM_KEYS, ARGV[2])
if not c then
  return NO_CONSUMER
end
local LETTERS_BYTES_MAX = 4194304
local found, bytes = {}, 0
local names = redis.call('ZRANGEBYSCORE', c.dead, '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])
for _, name in ipairs(names) do
  local id = id_of(tonumber(name))
  local entry = redis.call('XRANGE', c.letters, id, id)[1]
  found[#found + 1] = entry[2]
  bytes = bytes + size_of(entry[2])
  if bytes >= LETTERS_BYTES_MAX then
    break
  end
end
return { 'ok', found }
