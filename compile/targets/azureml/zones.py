"""Time zones by the names that Azure's schedules know them by: those of Windows.

The pairs are facts of the Unicode CLDR (windowsZones): each zone of Windows with the IANA zone that stands for it in
the world, and beside it the zones that people name most.
"""

from __future__ import annotations

UTC = "UTC"

_PAIRS = """
UTC: UTC Etc/UTC Etc/GMT
Hawaiian Standard Time: Pacific/Honolulu
Alaskan Standard Time: America/Anchorage America/Juneau
Pacific Standard Time (Mexico): America/Tijuana
Pacific Standard Time: America/Los_Angeles America/Vancouver US/Pacific
US Mountain Standard Time: America/Phoenix
Mountain Standard Time: America/Denver America/Edmonton US/Mountain
Central America Standard Time: America/Guatemala America/Costa_Rica America/El_Salvador
Central Standard Time: America/Chicago America/Winnipeg US/Central
Central Standard Time (Mexico): America/Mexico_City
Canada Central Standard Time: America/Regina
SA Pacific Standard Time: America/Bogota America/Lima America/Panama America/Jamaica
Eastern Standard Time (Mexico): America/Cancun
Eastern Standard Time: America/New_York America/Toronto America/Detroit US/Eastern
Cuba Standard Time: America/Havana
Atlantic Standard Time: America/Halifax Atlantic/Bermuda
Venezuela Standard Time: America/Caracas
Central Brazilian Standard Time: America/Cuiaba
SA Western Standard Time: America/La_Paz America/Puerto_Rico America/Santo_Domingo
Pacific SA Standard Time: America/Santiago
Newfoundland Standard Time: America/St_Johns
E. South America Standard Time: America/Sao_Paulo
SA Eastern Standard Time: America/Cayenne America/Fortaleza
Argentina Standard Time: America/Argentina/Buenos_Aires America/Buenos_Aires
Montevideo Standard Time: America/Montevideo
Azores Standard Time: Atlantic/Azores
Cape Verde Standard Time: Atlantic/Cape_Verde
Morocco Standard Time: Africa/Casablanca
GMT Standard Time: Europe/London Europe/Dublin Europe/Lisbon
Greenwich Standard Time: Atlantic/Reykjavik Africa/Abidjan Africa/Accra
W. Europe Standard Time: Europe/Berlin Europe/Amsterdam Europe/Rome Europe/Zurich Europe/Vienna Europe/Stockholm
Central Europe Standard Time: Europe/Budapest Europe/Prague Europe/Belgrade Europe/Ljubljana Europe/Bratislava
Romance Standard Time: Europe/Paris Europe/Madrid Europe/Brussels Europe/Copenhagen
Central European Standard Time: Europe/Warsaw Europe/Zagreb Europe/Sarajevo
W. Central Africa Standard Time: Africa/Lagos Africa/Algiers Africa/Tunis
Jordan Standard Time: Asia/Amman
GTB Standard Time: Europe/Bucharest Europe/Athens
Middle East Standard Time: Asia/Beirut
Egypt Standard Time: Africa/Cairo
South Africa Standard Time: Africa/Johannesburg Africa/Harare
FLE Standard Time: Europe/Kiev Europe/Kyiv Europe/Helsinki Europe/Riga Europe/Sofia Europe/Tallinn Europe/Vilnius
Turkey Standard Time: Europe/Istanbul
Israel Standard Time: Asia/Jerusalem Asia/Tel_Aviv
Arabic Standard Time: Asia/Baghdad
Arab Standard Time: Asia/Riyadh Asia/Kuwait Asia/Qatar
Belarus Standard Time: Europe/Minsk
Russian Standard Time: Europe/Moscow
E. Africa Standard Time: Africa/Nairobi Africa/Addis_Ababa
Iran Standard Time: Asia/Tehran
Arabian Standard Time: Asia/Dubai Asia/Muscat
Azerbaijan Standard Time: Asia/Baku
Georgian Standard Time: Asia/Tbilisi
Caucasus Standard Time: Asia/Yerevan
West Asia Standard Time: Asia/Tashkent
Pakistan Standard Time: Asia/Karachi
India Standard Time: Asia/Calcutta Asia/Kolkata
Sri Lanka Standard Time: Asia/Colombo
Nepal Standard Time: Asia/Katmandu Asia/Kathmandu
Bangladesh Standard Time: Asia/Dhaka
SE Asia Standard Time: Asia/Bangkok Asia/Jakarta Asia/Saigon Asia/Ho_Chi_Minh
China Standard Time: Asia/Shanghai Asia/Hong_Kong
Singapore Standard Time: Asia/Singapore Asia/Kuala_Lumpur Asia/Manila
W. Australia Standard Time: Australia/Perth
Taipei Standard Time: Asia/Taipei
Tokyo Standard Time: Asia/Tokyo
Korea Standard Time: Asia/Seoul
AUS Central Standard Time: Australia/Darwin
Cen. Australia Standard Time: Australia/Adelaide
E. Australia Standard Time: Australia/Brisbane
AUS Eastern Standard Time: Australia/Sydney Australia/Melbourne
Tasmania Standard Time: Australia/Hobart
New Zealand Standard Time: Pacific/Auckland
Fiji Standard Time: Pacific/Fiji
"""

WINDOWS: dict[str, str] = {
    zone: name
    for name, zones in (line.split(": ") for line in _PAIRS.strip().splitlines())
    for zone in zones.split(" ")
}
"""Names that Windows has for time zones, by the IANA names."""
