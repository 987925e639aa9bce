-- Takes messages into one stream or several: all of them or none.
--
-- KEYS: those of each stream. ARGV: the number of streams, the uid of each, lane, call, the milliseconds of
-- the delay or -1, then for each message the numbers of its streams ("1,2"), how many strings its fields are,
-- and these. Returns 'ok', the numbers, and 1 for each that was there before.

local streams = {}
local count = tonumber(ARGV[1])
for at = 1, count do
  local s = stream_at((at - 1) * STREAM_KEYS, ARGV[1 + at])
  if not s then
    return { 'stream.not_found', tostring(at) }
  end
  streams[at] = s
end
local lane, call, delay = ARGV[count + 2], ARGV[count + 3], tonumber(ARGV[count + 4])

local before = recall(streams[1], lane, call)
if before then
  return before
end

-- The most delayed messages that a stream holds.
local DELAYED_MAX = 1000000

local batch = {}
local at = count + 5
while at <= #ARGV do
  local length = tonumber(ARGV[at + 1])
  local fields = {}
  for place = at + 2, at + 1 + length do
    fields[#fields + 1] = ARGV[place]
  end
  batch[#batch + 1] = { targets = ARGV[at], fields = fields }
  at = at + 2 + length
end

-- What is new, for the limits; a message id counts once.
local function news_of(index, s)
  local seen, messages, bytes = {}, 0, 0
  for _, message in ipairs(batch) do
    if string.find(',' .. message.targets .. ',', ',' .. index .. ',', 1, true) then
      local id = s.window > 0 and field(message.fields, 'message_id')
      if not id or not (seen[id] or known_as(s, id)) then
        messages = messages + 1
        bytes = bytes + size_of(message.fields)
      end
      if id then
        seen[id] = true
      end
    end
  end
  return messages, bytes
end

for index, s in ipairs(streams) do
  if delay >= 0 then
    if redis.call('ZCARD', s.due) + #batch > DELAYED_MAX then
      return { 'stream.full', tostring(index), number(DELAYED_MAX) .. ' delayed messages' }
    end
  elseif s.discard == 'new' then
    keep_age(s)
    save(s)
    local why = full(s, news_of(index, s))
    if why then
      return { 'stream.full', tostring(index), why }
    end
  end
end

local numbers, duplicates = {}, {}
for _, message in ipairs(batch) do
  for index in string.gmatch(message.targets, '%d+') do
    local s = streams[tonumber(index)]
    if delay >= 0 then
      s.delayed = s.delayed + 1
      redis.call('XADD', s.later, id_of(s.delayed), unpack(message.fields))
      redis.call('ZADD', s.due, NOW + delay, string.format('%016.0f', s.delayed))
    else
      local sequence, duplicate = append(s, message.fields)
      numbers[#numbers + 1] = sequence
      duplicates[#duplicates + 1] = duplicate and 1 or 0
    end
  end
end
for _, s in ipairs(streams) do
  keep_limits(s)
  tend(s)
  if delay >= 0 then
    ring(s)
  end
end
return remember(streams[1], lane, call, { 'ok', numbers, duplicates })
