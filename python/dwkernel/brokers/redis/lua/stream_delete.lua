-- Deletes a stream. KEYS: those of the stream and of each of its consumers. ARGV: its uid, and the names of its
-- consumers, in the order of their keys. Returns 'ok', 'stream.not_found', or 'again' if it has other consumers.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local names = redis.call('ZRANGE', s.consumers, 0, -1)
table.sort(names)
if #names ~= #ARGV - 1 then
  return { 'again' }
end
for at, name in ipairs(names) do
  if ARGV[1 + at] ~= name then
    return { 'again' }
  end
end
for _, key in ipairs(KEYS) do
  redis.call('UNLINK', key)
end
return { 'ok' }
